"""An environment of one's own: a point that is to be moved onto a square, ``env.type=reach``."""

from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
from lerobot.envs.configs import EnvConfig

from bridge.plugin.gym_config import ChunkedGymConfig


class Reach(gym.Env):
    observation_space = gym.spaces.Dict({})
    action_space = gym.spaces.Box(-0.1, 0.1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.point, self.square = self.np_random.uniform(0.1, 0.9, (2, 2))
        return self._observed(), {}

    def step(self, action):
        self.point = np.clip(self.point + action, 0, 1)
        success = bool(np.abs(self.point - self.square).max() < 0.05)
        return self._observed(), float(success), success, False, {"is_success": success}

    def _observed(self):
        image = np.zeros((64, 64, 3), np.uint8)
        for (x, y), colour in ((self.square, (200, 40, 40)), (self.point, (240, 240, 240))):
            row, column = int(60 * y), int(60 * x)
            image[row : row + 4, column : column + 4] = colour
        return {"pixels": {"top": image}, "agent_pos": self.point.astype(np.float32)}


gym.register("Reach-v0", Reach, max_episode_steps=32, disable_env_checker=True, order_enforce=False)


@EnvConfig.register_subclass("reach")
@dataclass
class ReachConfig(ChunkedGymConfig):
    gym_id: str = "Reach-v0"
    instruction: str = "move the point onto the square"
    image_keys: dict[str, str] = field(default_factory=lambda: {"top": "observation.images.top"})
    state_dim: int = 2
    action_dim: int = 2
