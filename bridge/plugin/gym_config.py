"""``env.type=chunked_gym``: any gym environment behind LeRobot's actor, one chunk a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import gymnasium as gym
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig, HILSerlRobotEnvConfig
from lerobot.utils.constants import ACTION, OBS_STATE
from transformers import AutoTokenizer

from bridge.plugin import panda, transport
from bridge.plugin.chunk_env import ChunkEnv
from bridge.plugin.recipe_config import language_features

_numbers = count()


@EnvConfig.register_subclass("chunked_gym")
@dataclass
class ChunkedGymConfig(HILSerlRobotEnvConfig):
    """A gym environment with ``{"pixels", "agent_pos"}`` observations; the defaults are PandaPickCube's."""

    gym_id: str = panda.ENV_ID
    """As for ``gym.make``; ``module:id`` imports the module that registers it."""
    gym_kwargs: dict[str, Any] | None = None  # pyright: ignore[reportIncompatibleMethodOverride]
    """Keyword arguments of ``gym.make``."""
    max_episode_steps: int | None = None
    """Inner steps after which an episode is truncated; None keeps the environment's own limit."""
    instruction: str = panda.INSTRUCTION
    domain_id: int = 0
    image_keys: dict[str, str] = field(default_factory=lambda: {"front": "observation.images.front"})
    """Name of an image in ``pixels`` → the policy's input feature; "" names a bare ``pixels`` array."""
    image_shape: tuple[int, int, int] = (3, 64, 64)
    """(c, h, w) of each image."""
    state_dim: int = 5
    action_dim: int = 4
    actor_id: int = 0
    """Give each actor of a run its own: it makes the episodes' seeds and the policy's noise."""
    seed: int | None = None
    """Of the episodes; None takes the run's ``seed``."""
    tokenizer_name: str | None = None
    """Folder or hub id; None, like the next three, takes the policy's."""
    tokenizer_max_length: int | None = None
    tokenizer_padding: str | None = None
    tokenizer_padding_side: str | None = None
    fps: int = -1
    """Negative: simulated time does not wait for the clock."""

    def __post_init__(self) -> None:
        # LeRobot's actor makes "gym_hil/<task>" for environments of this name; the id is registered here.
        self.name = "gym_hil"
        self.task = f"chunked-{next(_numbers)}-v0"
        self.gym_kwargs = dict(self.gym_kwargs or {})
        channels, height, width = self.image_shape  # a list, when it comes from JSON
        self.image_shape = (channels, height, width)
        for name in ("state_dim", "domain_id", "actor_id"):
            if getattr(self, name) < 0:
                raise ValueError(f"env.{name} must be ≥ 0; got {getattr(self, name)}.")
        if self.action_dim < 1 or not self.image_keys:
            raise ValueError("env.action_dim must be at least 1 and env.image_keys must name an image.")
        self._describe(self.tokenizer_max_length or 0)

        def make(
            **kwargs: Any,
        ) -> ChunkEnv:  # gymnasium copies specs deeply: a function stays one, a method does not
            return self.make(**kwargs)

        gym.register(
            id=f"gym_hil/{self.task}", entry_point=make, disable_env_checker=True, order_enforce=False
        )

    def take_defaults_from(self, policy: Any, seed: int | None) -> None:
        """Fill what is None from the run's policy config and seed, and check the rest against the policy.

        Raises:
            ValueError: Policy and environment do not fit each other.
        """
        self.seed = (seed or 0) if self.seed is None else self.seed
        for own, theirs in (
            ("tokenizer_name", "tokenizer_name"),
            ("tokenizer_max_length", "tokenizer_max_length"),
            ("tokenizer_padding", "pad_language_to"),
            ("tokenizer_padding_side", "tokenizer_padding_side"),
        ):
            if getattr(self, own) is None:
                setattr(self, own, getattr(policy, theirs))
        if self.tokenizer_max_length != policy.tokenizer_max_length:
            raise ValueError(
                f"env.tokenizer_max_length={self.tokenizer_max_length} differs from the policy's "
                f"{policy.tokenizer_max_length}. Leave the environment's unset."
            )
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
        """Create the environment. LeRobot's arguments (``image_obs``, ``render_mode``, gripper) do not apply.

        Raises:
            ValueError: No tokenizer is known.
        """
        if self.tokenizer_name is None:
            raise ValueError("env.tokenizer_name is not set: the instruction cannot become token ids.")
        # None, too, keeps the limit the environment was registered with.
        inner = gym.make(self.gym_id, max_episode_steps=self.max_episode_steps, **(self.gym_kwargs or {}))
        channel = transport.current()
        return ChunkEnv(
            inner,
            image_keys=self.image_keys,
            image_shapes=dict.fromkeys(self.image_keys.values(), self.image_shape),
            state_dim=self.state_dim,
            tokens=[self._tokens()],
            domain_id=self.domain_id,
            seed=self.seed or 0,
            actor_id=self.actor_id,
            action_dims=getattr(self, "_action_dims", None),
            before_reset=None if channel is None else channel.wait_for_room,
        )

    def _tokens(self) -> list[int]:
        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer_name)
        # As LeRobot's TokenizerProcessorStep, which the warm start and the evaluation go through.
        return tokenizer(
            self.instruction,
            max_length=self.tokenizer_max_length,
            truncation=True,
            padding=self.tokenizer_padding or "max_length",
            padding_side=self.tokenizer_padding_side or "right",
        )["input_ids"]

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
