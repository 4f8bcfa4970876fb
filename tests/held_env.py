"""PandaPickCube that can be made to stand still, so that a test knows where in an episode its actors are."""

import os
import time
from pathlib import Path
from typing import Any

import gymnasium as gym

from bridge.plugin.panda import MAX_EPISODE_STEPS, PandaPickCube

ENV_ID = "held_env:HeldPandaPickCube-v0"


class HeldPandaPickCube(PandaPickCube):
    """At an episode's first step it waits while there is a file.

    Args:
        hold: The file. Who waits for its end writes one beside it, whose suffix is the process's number.
        options: PandaPickCube's.
    """

    def __init__(self, hold: str, **options: Any) -> None:
        super().__init__(**options)
        self._hold, self._begins = Path(hold), False

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin at leisure: an actor whose learner compiles would keep the processor to itself."""
        time.sleep(0.3)
        self._begins = True
        return super().reset(**options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act for one control period."""
        while self._begins and self._hold.exists():
            self._hold.with_suffix(f".{os.getpid()}").touch()
            time.sleep(0.05)
        self._begins = False
        return super().step(action)


gym.register(
    "HeldPandaPickCube-v0",
    entry_point=HeldPandaPickCube,
    kwargs={"max_episode_steps": None},
    max_episode_steps=MAX_EPISODE_STEPS,
    disable_env_checker=True,
    order_enforce=False,
)
