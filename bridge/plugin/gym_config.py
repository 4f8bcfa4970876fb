"""``env.type=chunked_gym``: any gym environment behind LeRobot's actor, one chunk a step."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import gymnasium as gym
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig, HILSerlRobotEnvConfig
from lerobot.utils.constants import ACTION, OBS_STATE

from bridge.plugin import panda, transport
from bridge.plugin.actor_settings import ActorSettings
from bridge.plugin.assigned import refuse
from bridge.plugin.chunk_env import ChunkEnv
from bridge.plugin.recipe_config import language_features

_TASK = "chunked-{}-v0"
_numbers = count()

log = logging.getLogger(__name__)


@EnvConfig.register_subclass("chunked_gym")
@dataclass
class ChunkedGymConfig(ActorSettings, HILSerlRobotEnvConfig):
    """A gym environment with ``{"pixels", "agent_pos"}`` observations; the defaults are PandaPickCube's."""

    gym_id: str = panda.ENV_ID  # pyright: ignore[reportIncompatibleMethodOverride] - an option, not a rule
    """As for ``gym.make``; ``module:id`` imports the module that registers it."""
    gym_kwargs: dict[str, Any] | None = None  # pyright: ignore[reportIncompatibleMethodOverride]
    """Keyword arguments of ``gym.make``."""
    max_episode_steps: int | None = None
    """Inner steps after which an episode is truncated; None keeps the environment's own limit."""
    instruction: str = panda.INSTRUCTION
    """What the policy is told to do, in every episode."""
    domain_id: int = 0
    """Which of X-VLA's soft prompts; at least 0 and below ``policy.num_domains``."""
    image_keys: dict[str, str] = field(default_factory=lambda: {"front": "observation.images.front"})
    """Name of an image in ``pixels`` → the policy's input feature; "" names a bare ``pixels`` array."""
    image_shape: tuple[int, int, int] = (3, 64, 64)
    """(c, h, w) of each image."""
    state_dim: int = 5
    """Numbers in ``agent_pos``; 0: the environment has none."""
    action_dim: int = 4
    """Channels of an executed action; at least 1."""
    fps: int = -1
    """Negative: simulated time does not wait for the clock."""

    def __post_init__(self) -> None:
        if self.task is not None and not re.fullmatch(
            _TASK.format(r"\d+"), self.task
        ):  # else of a saved config
            raise ValueError(
                f"env.task={self.task} is not read here: env.gym_id says which environment it is."
            )
        if self.robot is not None or self.teleop is not None:
            raise ValueError("env.robot and env.teleop are not read here: the environment is simulated.")
        given = self.features
        # LeRobot's actor makes "gym_hil/<task>" for environments of this name; the id is registered here.
        self.name = "gym_hil"
        self.task = _TASK.format(next(_numbers))
        self.gym_kwargs = dict(self.gym_kwargs or {})  # pyright: ignore[reportIncompatibleMethodOverride]
        channels, height, width = self.image_shape  # a list, when it comes from JSON
        self.image_shape = (channels, height, width)
        for name in ("state_dim", "domain_id"):
            if getattr(self, name) < 0:
                raise ValueError(f"env.{name} must be ≥ 0; got {getattr(self, name)}.")
        if self.action_dim < 1 or not self.image_keys:
            raise ValueError("env.action_dim must be at least 1 and env.image_keys must name an image.")
        self._describe(self.tokenizer_max_length or 0)
        if given and given.keys() != self.features.keys():
            log.warning(
                "env.features has no effect here: image_keys, image_shape, state_dim and action_dim do."
            )

        def make(
            **kwargs: Any,
        ) -> ChunkEnv:  # gymnasium copies specs deeply: a function stays one, a method does not
            return self.make(**kwargs)

        gym.register(
            id=f"gym_hil/{self.task}", entry_point=make, disable_env_checker=True, order_enforce=False
        )

    own_fields = (*ActorSettings.own_fields, "task", "name")
    """The gym id under which LeRobot's actor makes it is counted in each process."""

    length_field = "max_episode_steps"

    @property
    def observation_shapes(self) -> dict[str, tuple[int, ...]]:
        """As in the base class; no state where ``state_dim`` is 0."""
        images = dict.fromkeys(self.image_keys.values(), self.image_shape)
        return {**images, **({OBS_STATE: (self.state_dim,)} if self.state_dim else {})}

    @property
    def max_steps(self) -> int | None:
        """``max_episode_steps``: None also where the environment has a limit of its own."""
        return self.max_episode_steps

    def take_defaults_from(self, policy: Any, seed: int | None) -> None:
        """Do as the base class, and check the domain and the images."""
        super().take_defaults_from(policy, seed)
        if not 0 <= self.domain_id < policy.num_domains:
            raise ValueError(
                f"env.domain_id={self.domain_id} is not below policy.num_domains={policy.num_domains}."
            )
        missing = set(self.image_keys.values()) - set(policy.image_features)
        if policy.image_features and missing:
            raise ValueError(
                f"env.image_keys leads to {sorted(missing)}, which policy.input_features does not have; it "
                f"has {sorted(policy.image_features)}."
            )
        self._action_dims = (policy.n_action_steps, self.action_dim)
        self._describe(policy.tokenizer_max_length)

    def make(self, **_: Any) -> ChunkEnv:
        """Create the environment. LeRobot's arguments (``image_obs``, ``render_mode``, …) do not apply."""
        # None, too, keeps the limit the environment was registered with.
        inner = gym.make(self.gym_id, max_episode_steps=self.max_episode_steps, **(self.gym_kwargs or {}))
        channel = transport.current()
        try:
            self.check_length(inner.spec.max_episode_steps if inner.spec else None)
        except ValueError as error:
            inner.close()
            if channel is None:
                raise
            refuse(str(error))  # LeRobot's actor catches errors, and exits with 0
        return ChunkEnv(
            inner,
            image_keys=self.image_keys,
            image_shapes=self.observation_shapes,
            state_dim=self.state_dim,
            tokens=self.tokenize([self.instruction]),
            domain_id=self.domain_id,
            seed=self.seed or 0,
            action_dims=getattr(self, "_action_dims", None),
            assign=None if channel is None else channel.episodes.next,
        )

    def _describe(self, num_tokens: int) -> None:
        features = {
            key: PolicyFeature(FeatureType.VISUAL, self.image_shape) for key in self.image_keys.values()
        }
        if self.state_dim:
            features[OBS_STATE] = PolicyFeature(FeatureType.STATE, (self.state_dim,))
        features |= language_features(num_tokens)
        features[ACTION] = PolicyFeature(FeatureType.ACTION, (self.action_dim,))
        self.features = features
        self.features_map = {key: key for key in features}
