"""An environment whose outcome is a coin that the action tosses: groups from one state come out mixed.

``env.gym_id=coin_env:Coin-v0``; the actor's process needs this folder on its PYTHONPATH.
"""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium as gym
import numpy as np


class Coin(gym.Env):
    """One chunk of eight steps an episode; the third decimal of its first action says whether it succeeds.

    Args:
        seconds: That a step takes.
        record: File that gets process and seed of each episode.
    """

    observation_space = gym.spaces.Dict({})
    action_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)

    def __init__(self, seconds: float = 0.0, record: str | None = None) -> None:
        self._seconds, self._record = seconds, record

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw an observation from the seed, at leisure: else an actor whose learner compiles would keep the
        processor to itself."""
        time.sleep(0.1)
        super().reset(seed=seed)
        if self._record is not None:
            with open(self._record, "a") as file:
                file.write(f"{os.getpid()} {seed}\n")
        self._observation = {
            "pixels": {"front": self.np_random.integers(0, 256, (64, 64, 3), np.uint8)},
            "agent_pos": self.np_random.normal(size=5).astype(np.float32),
        }
        self._steps, self._success = 0, False
        return self._observation, {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Toss at the first step, pay at the eighth."""
        time.sleep(self._seconds)
        if self._steps == 0:
            self._success = bool(np.floor(1000 * action[0]) % 2)
        self._steps += 1
        over = self._steps == 8
        reward = float(over and self._success)
        return self._observation, reward, over and self._success, over, {"is_success": bool(reward)}


gym.register("Coin-v0", Coin, disable_env_checker=True, order_enforce=False)
