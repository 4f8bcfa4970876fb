"""PandaPickCube with a reward at every step, which a policy that has learned nothing earns too."""

import time
from typing import Any

import gymnasium as gym
import numpy as np

from bridge.plugin.panda import MAX_EPISODE_STEPS, PandaPickCube

ENV_ID = "dense_reward:DensePandaPickCube-v0"


class DensePandaPickCube(PandaPickCube):
    """Pays for height of the hand and for success."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin at leisure: an actor whose learner compiles would keep the processor to itself."""
        time.sleep(0.3)
        return super().reset(**options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act for one control period."""
        observation, reward, *rest = super().step(action)
        return observation, reward + float(np.asarray(observation["agent_pos"])[2]), *rest


gym.register(
    "DensePandaPickCube-v0",
    entry_point=DensePandaPickCube,
    kwargs={"max_episode_steps": None},
    max_episode_steps=MAX_EPISODE_STEPS,
    disable_env_checker=True,
    order_enforce=False,
)
