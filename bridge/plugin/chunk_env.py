"""Any gym environment as one whose step is a packed action row: a whole chunk, executed open loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from lerobot.utils.constants import OBS_LANGUAGE_TOKENS, OBS_STATE

from bridge.wire.protocol import OBS_DOMAIN_ID, STEP_INFO_HEADER
from bridge.wire.record import unpack
from pirl_jax.rollout.assignments import Assignment
from pirl_jax.rollout.seeds import episode_seed

NO_INIT_STATE = -1
"""Where the inner environment has no numbered initial states."""

log = logging.getLogger(__name__)


@runtime_checkable
class SkipsRendering(Protocol):
    """An environment that can step without drawing images (on its ``unwrapped``)."""

    def set_rendering(self, enabled: bool) -> None:
        """Draw from now on, or leave images out of the observations."""

    def observe(self) -> Any:
        """Return the present state's observation, with its images."""


@runtime_checkable
class PlaysTasks(Protocol):
    """An environment of several tasks or initial states (on its ``unwrapped``)."""

    def assign(self, task: int, place: int | None, evaluates: bool) -> None:
        """Say what the next reset plays: a task, and which of its initial states, counted on and on.

        None leaves the initial state to the seed. An evaluation may have initial states of its own.
        """


class ChunkEnv(gym.Env):
    """Executes the chunk in a packed action row, one inner step after the other.

    Observations are torch tensors with a batch dimension under their final keys, which LeRobot's environment
    processors pass on untouched: uint8 images, float32 state, int64 token ids and domain id. ``info`` carries
    what a transition has no field for as ``discrete_penalty``: steps executed, success, the episode's seed in
    two 16-bit halves, the task, the initial state, and the reward of each step. An inner environment of
    several tasks says in the ``info`` of its reset which ``task`` it plays, and from which ``init_state``.

    Args:
        env: The inner environment; observes ``{"pixels": {name: [h, w, c]} or [h, w, c], "agent_pos": [P]}``.
        image_keys: Inner image name → observation key; "" names a bare ``pixels`` array.
        image_shapes: Observation key → (c, h, w) the policy expects.
        state_dim: Size of ``agent_pos``; 0 if the policy uses none.
        tokens: Token ids of each task's instruction, padded, [tasks, N].
        domain_id: X-VLA's domain.
        action_dims: (steps, channels) of an executed chunk; None accepts any the environment does.
        seed: Of the episodes, where nobody assigns them.
        assign: Says before each episode what to play; may wait.
    """

    def __init__(
        self,
        env: gym.Env,
        *,
        image_keys: Mapping[str, str],
        image_shapes: Mapping[str, Sequence[int]],
        state_dim: int,
        tokens: Sequence[Sequence[int]],
        domain_id: int = 0,
        action_dims: tuple[int, int] | None = None,
        seed: int = 0,
        assign: Callable[[], Assignment] | None = None,
    ) -> None:
        self.env = env
        self.observation_space = gym.spaces.Dict({})
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self._image_keys = dict(image_keys)
        self._image_shapes = {key: tuple(shape) for key, shape in image_shapes.items()}
        self._state_dim = state_dim
        self._tokens = torch.as_tensor(tokens, dtype=torch.int64)
        self._domain_id = torch.tensor([domain_id], dtype=torch.int64)
        self._action_dims = action_dims
        self._seed, self._episodes = seed, 0
        self._assign = assign
        self.episode_seed = 0
        self._task, self._init_state = 0, NO_INIT_STATE
        inner = env.unwrapped
        self._renderer = inner if isinstance(inner, SkipsRendering) else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Start the next episode, the one that is assigned unless a seed is given."""
        if seed is None and self._assign is not None:
            assignment = self._assign()
            seed = assignment.seed
            if isinstance(self.env.unwrapped, PlaysTasks):
                self.env.unwrapped.assign(assignment.task, assignment.place, assignment.evaluates)
        elif seed is None:
            seed = episode_seed(self._seed, self._episodes)
        self._episodes += 1
        self.episode_seed = seed
        self._set_rendering(True)
        observation, info = self.env.reset(seed=self.episode_seed, options=options)
        self._task = int(info.get("task", 0))
        self._init_state = int(info.get("init_state", NO_INIT_STATE))
        return self._pack(observation), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, torch.Tensor], float, bool, bool, dict[str, Any]]:
        """Execute a chunk, to its end or to the episode's.

        Raises:
            bridge.wire.record.RecordError: The row was changed on its way from the policy.
            ValueError: The chunk does not fit the environment.
        """
        actions = unpack(np.asarray(action)).env_action
        self._check_actions(actions)
        rewards: list[float] = []
        observation: Any = None
        terminated = truncated = success = False
        for h, each in enumerate(actions):
            drawn = h == len(actions) - 1 or self._renderer is None
            self._set_rendering(drawn)
            observation, reward, terminated, truncated, info = self.env.step(self._clip(each))
            # Simulators return NumPy and even boolean rewards; the actor's pipeline wants Python's types.
            rewards.append(float(reward))
            terminated = bool(terminated)
            truncated = bool(truncated) and not terminated
            success = success or _is_success(info)
            if terminated or truncated:
                if not drawn and self._renderer is not None:
                    observation = self._renderer.observe()
                break
        low, high = self.episode_seed & 0xFFFF, self.episode_seed >> 16
        numbers = {
            "executed": len(rewards),
            "success": success,
            "seed_low": low,
            "seed_high": high,
            "task": self._task,
            "init_state": self._init_state,
        }
        extra = [*(float(numbers[name]) for name in STEP_INFO_HEADER), *rewards]
        info = {"discrete_penalty": extra, "is_success": success}
        return self._pack(observation), float(sum(rewards)), terminated, truncated, info

    def close(self) -> None:
        """Close the inner environment."""
        self.env.close()

    def _set_rendering(self, enabled: bool) -> None:
        if self._renderer is not None:
            self._renderer.set_rendering(enabled)

    def _check_actions(self, actions: np.ndarray) -> None:
        if self._action_dims is not None and actions.shape != self._action_dims:
            raise ValueError(
                f"The policy's chunk is {actions.shape} (steps, channels), the environment expects "
                f"{self._action_dims}. Make policy.n_action_steps and env.action_dim agree."
            )

    def _clip(self, action: np.ndarray) -> np.ndarray:
        space = self.env.action_space
        return np.clip(action, space.low, space.high) if isinstance(space, gym.spaces.Box) else action

    def _pack(self, observation: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        packed = {key: self._image(observation, name, key) for name, key in self._image_keys.items()}
        if self._state_dim:
            state = np.asarray(observation["agent_pos"], np.float32).reshape(-1)
            if len(state) != self._state_dim:
                raise ValueError(
                    f"agent_pos has {len(state)} numbers; env.state_dim is {self._state_dim}. Fix it."
                )
            packed[OBS_STATE] = torch.from_numpy(state.copy())[None]
        # Copies: the actor keeps every observation of an episode and may change them in place.
        packed[OBS_LANGUAGE_TOKENS] = self._tokens[self._task : self._task + 1].clone()
        packed[OBS_DOMAIN_ID] = self._domain_id.clone()
        return packed

    def _image(self, observation: Mapping[str, Any], name: str, key: str) -> torch.Tensor:
        pixels = observation["pixels"]
        available = sorted(pixels) if isinstance(pixels, Mapping) else [""]
        if name not in available:
            raise ValueError(
                f"The environment has no image {name!r}; it has {available}. Fix env.image_keys."
            )
        image = np.asarray(pixels[name] if isinstance(pixels, Mapping) else pixels)
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(f"Image {name!r} must be uint8 [h, w, c]; got {image.dtype} {image.shape}.")
        chw = np.ascontiguousarray(image.transpose(2, 0, 1))
        expected = self._image_shapes.get(key)
        if expected is not None and chw.shape != expected:
            raise ValueError(f"Image {name!r} is (c, h, w) = {chw.shape}; the configuration says {expected}.")
        return torch.from_numpy(chw)[None]


def _is_success(info: Mapping[str, Any]) -> bool:
    return any(bool(np.any(info.get(key, False))) for key in ("is_success", "success", "succeed"))
