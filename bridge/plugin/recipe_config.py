"""``algorithm.type=pi_rl``: the recipe in LeRobot's config dialect, and what the stock actor reads besides.

X-VLA's own config stays stock. The stock actor, written for SAC, reads fields from ``cfg.policy`` that
``XVLAConfig`` does not have; they live here, on the recipe, and are attached to the policy's config as plain
attributes, which LeRobot neither serialises nor decodes.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any, cast

from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.policies.gaussian_actor.configuration_gaussian_actor import ActorLearnerConfig, ConcurrencyConfig
from lerobot.rl.algorithms.configs import RLAlgorithmConfig
from lerobot.utils.constants import OBS_LANGUAGE_TOKENS

from bridge.wire.protocol import OBS_DOMAIN_ID
from pirl_jax.likelihood import gripper, modes
from pirl_jax.recipe import LaunchConfig, Recipe, SecurityConfig
from pirl_jax.recipe.idle import refuse_idle
from pirl_jax.recipe.ranges import RANGES, check_address
from pirl_jax.run_folder.retention import Retention
from pirl_jax.xvla.channels import xvla_gripper_logits

SUPPORTED_POLICIES = ("xvla",)

_MARK = "_pirl_recipe"

log = logging.getLogger(__name__)


def _quick_actor_learner_config() -> ActorLearnerConfig:
    # The sending threads look for the end of the run once per timeout; LeRobot's 2 s would delay every stop.
    return ActorLearnerConfig(queue_get_timeout=0.2)


STATS_OF = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
"""LeRobot's normalisations and the statistics that each uses."""


@RLAlgorithmConfig.register_subclass("pi_rl")
@dataclass
class PiRLConfig(RLAlgorithmConfig, Recipe):
    """The recipe's numbers (``pirl_jax.recipe.Recipe``) and the run's settings."""

    actor_learner_config: ActorLearnerConfig = field(default_factory=_quick_actor_learner_config)
    """LeRobot's section: ``learner_host`` and ``learner_port`` (127.0.0.1, 50051), where the learner listens
    and everybody else finds it; ``queue_get_timeout`` (0.2), seconds after which an actor's threads look
    whether the run has ended. The push frequency is not used."""
    concurrency: ConcurrencyConfig = field(default_factory=ConcurrencyConfig)
    """LeRobot's section: ``actor`` and ``learner``, ``threads`` both; LeRobot's actor delivers nothing in
    ``processes`` mode."""
    max_actors: int = 64
    """Actors that the learner serves at once."""
    memory_gb: float | None = None
    """GiB of its device's memory that the learner may use; null: JAX's share of a GPU, or what a machine
    without one has free."""
    rows_gb: float | None = None
    """GiB of encoded observations that lie in host memory, those beyond in files in $TMPDIR; null: half
    of the memory that is free."""
    checkpoint: Retention = field(default_factory=Retention)
    """Which of the run's checkpoints stay on disk."""
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    """The run's processes, for ``pirl-launch``."""
    security: SecurityConfig = field(default_factory=SecurityConfig)
    """Who may reach the ports of the run, and how."""
    storage_device: str = "cpu"
    """Where LeRobot's own learner keeps its replay buffer: without effect here, which has none."""
    online_steps: int = 1_000_000_000
    """Chunks after which an actor stops by itself; stop it by SIGTERM instead."""
    dataset_stats: dict[str, dict[str, list[float]]] | None = None
    """Statistics of actions, for a policy whose ``normalization_mapping`` un-normalises them."""

    # Of this process, not of the run: without annotations, hence neither fields nor saved.
    actor_name = "0"
    agreement = cast(Any, staticmethod(dict))
    """Returns what learner and actors must agree on (``agreement.agreement``)."""
    env_action = cast(Any, None)
    """Turns the policy's actions [H, A] into the environment's [H, R]; None: they are the environment's."""
    _policy_config = None

    def __post_init__(self) -> None:
        """Check what the sections ask of each other, and that each setting does something.

        Raises:
            ValueError: naming the fields, the values and the remedy.
        """
        refuse_idle(self)
        super().__post_init__()
        learner = self.actor_learner_config
        if not 0 < learner.queue_get_timeout < math.inf:
            raise ValueError(
                "algorithm.actor_learner_config.queue_get_timeout must be a number of seconds above 0; got "
                f"{learner.queue_get_timeout}."
            )
        check_address("algorithm.actor_learner_config.learner_", learner.learner_host, learner.learner_port)

    @classmethod
    def from_policy_config(cls, policy_cfg: PreTrainedConfig) -> PiRLConfig:
        """Return the defaults, bound to a policy's config."""
        config = cls()
        config.policy_config = policy_cfg
        return config

    # Not a dataclass field: a field would be serialised, and decoded into a second policy config.
    @property
    def policy_config(self) -> Any:
        """The policy's config that carries the actor's settings; None until bound."""
        return self._policy_config

    @policy_config.setter
    def policy_config(self, policy: Any) -> None:
        if policy is not None:
            self._check(policy)
            self._attach(policy)
        self._policy_config = policy

    def _check(self, policy: Any) -> None:
        if policy.type not in SUPPORTED_POLICIES:
            raise ValueError(
                f"algorithm.type=pi_rl trains flow-matching policies: {', '.join(SUPPORTED_POLICIES)}; "
                f"got policy.type={policy.type}. Set policy.type, or algorithm.type=sac for a Gaussian actor."
            )
        modes.validate(self.noise, policy.num_denoising_steps)
        gripper.sampled_channels(self.noise, xvla_gripper_logits(policy.action_mode.lower()))
        if self.concurrency.actor != "threads":
            raise ValueError(
                f"algorithm.concurrency.actor must be threads; got {self.concurrency.actor}. LeRobot's actor "
                "sends nothing in processes mode."
            )
        if policy.n_action_steps < 1:
            raise ValueError(f"policy.n_action_steps must be ≥ 1; got {policy.n_action_steps}.")
        for name, allowed in RANGES["run"].items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                null = ", or null" if getattr(type(self), name) is None else ""
                raise ValueError(f"algorithm.{name} must be {allowed}{null}; got {value}.")
        for kind in ("VISUAL", "STATE"):
            mode = policy.normalization_mapping.get(kind, NormalizationMode.IDENTITY)
            if mode is not NormalizationMode.IDENTITY:
                raise ValueError(
                    f"policy.normalization_mapping.{kind} must be IDENTITY under pi_rl; got {mode.value}. "
                    "The learner receives observations as the environment emits them."
                )
        mode = policy.normalization_mapping.get("ACTION", NormalizationMode.IDENTITY)
        if mode is not NormalizationMode.IDENTITY and "action" not in (self.dataset_stats or {}):
            raise ValueError(
                f"policy.normalization_mapping.ACTION is {mode.value} but algorithm.dataset_stats has no "
                "'action', so the actor could not un-normalise. Give them, or set ACTION to IDENTITY."
            )
        if mode is not NormalizationMode.IDENTITY:
            self._check_action_stats(mode.value)
        elif self.dataset_stats:
            log.warning(
                "algorithm.dataset_stats has no effect: policy.normalization_mapping.ACTION is IDENTITY."
            )

    def _check_action_stats(self, mode: str) -> None:
        stats, sizes = (self.dataset_stats or {})["action"], set()
        for name in STATS_OF.get(mode, ()):
            values = [float(value) for value in stats.get(name, [])]
            sizes.add(len(values))
            if not values or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
                above = " above 0" if name == "std" else ""
                raise ValueError(
                    f"policy.normalization_mapping.ACTION={mode} needs dataset_stats.action.{name}: "
                    f"a finite number{above} for each channel; got {stats.get(name)}."
                )
        if len(sizes) > 1:
            raise ValueError(
                f"algorithm.dataset_stats.action has statistics of {' and '.join(map(str, sorted(sizes)))} "
                "channels. Give each for all channels of the action."
            )

    def _attach(self, policy: Any) -> None:
        attributes = {
            "actor_learner_config": self.actor_learner_config,
            "concurrency": self.concurrency,
            "online_steps": self.online_steps,
            "storage_device": self.storage_device,
            "dataset_stats": self.dataset_stats,
            "num_discrete_actions": None,
            _MARK: self.inference,
        }
        for name, value in attributes.items():
            setattr(policy, name, value)
        if policy.domain_feature_key not in (None, OBS_DOMAIN_ID):
            log.warning(
                "policy.domain_feature_key=%s has no effect under pi_rl: the domain is env.domain_id.",
                policy.domain_feature_key,
            )
        policy.domain_feature_key = OBS_DOMAIN_ID
        # Without features of its own the policy gets the environment's, which include these two.
        if policy.input_features:
            for key, feature in language_features(policy.tokenizer_max_length).items():
                policy.input_features.setdefault(key, feature)


def language_features(num_tokens: int) -> dict[str, PolicyFeature]:
    """Return the features under which the environment emits the instruction and the domain.

    LeRobot's actor passes on observations only, and of those the policy's input features only.
    """
    return {
        OBS_LANGUAGE_TOKENS: PolicyFeature(type=FeatureType.LANGUAGE, shape=(num_tokens,)),
        OBS_DOMAIN_ID: PolicyFeature(type=FeatureType.LANGUAGE, shape=(1,)),
    }


def is_bound(policy_config: Any) -> bool:
    """Tell whether a policy's config belongs to a run of this recipe."""
    return bool(getattr(policy_config, _MARK, None))


def is_served(policy_config: Any) -> bool:
    """Tell whether a policy server chooses the chunks of the policy's actors."""
    return getattr(policy_config, _MARK, None) == "served"
