"""The sections of the recipe together, and what they ask of each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from pirl_jax.recipe import ranges
from pirl_jax.recipe.advantage import AdvantageConfig
from pirl_jax.recipe.critic import CriticConfig
from pirl_jax.recipe.demonstrations import DemonstrationsConfig
from pirl_jax.recipe.mesh import MeshConfig
from pirl_jax.recipe.noise import NoiseConfig
from pirl_jax.recipe.objective import ObjectiveConfig
from pirl_jax.recipe.optimizer import OptimizerConfig
from pirl_jax.recipe.push import PushConfig
from pirl_jax.recipe.rollout import RolloutConfig
from pirl_jax.recipe.serve import ServeConfig
from pirl_jax.recipe.videos import VideosConfig
from pirl_jax.recipe.watchdog import WatchdogConfig

HeadPrecision = Literal["highest", "bf16_x6", "bf16_x3", "tf32_x3", "tf32", "bf16"]


@dataclass
class Recipe:
    """Chunk-level PPO for flow policies (πRL, arXiv 2510.25889).

    Sizes, gamma, lambda, clip, lr and epochs are piRL's; all its settings: configs/presets/pirl_paper.json.
    Each section is explained by its class.
    """

    trainable: Literal["head", "soft_prompts"] = "head"
    """What is trained, less what the policy's own flags freeze (``train_policy_transformer=false``, …)."""
    head_precision: HeadPrecision = "highest"
    """Of the flow head's products in the learner, gradients included (``pirl_jax/linear.py``). ``highest`` is
    float32; the others are coarser, and for a GPU only. Actors act in float32 all the same, which makes them
    differ from the learner (docs/numerics.md)."""
    inference: Literal["local", "served"] = "local"
    """Who chooses an actor's chunks: its own copy of the policy, in torch; or a policy server, for all actors
    at a time (docs/serving.md)."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    demonstrations: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    push: PushConfig = field(default_factory=PushConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)
    videos: VideosConfig = field(default_factory=VideosConfig)

    def __post_init__(self) -> None:
        """Check what the sections ask of each other.

        Raises:
            ValueError: naming the fields, the values and the remedy.
        """
        ranges.check_choice("algorithm.trainable", self.trainable, ("head", "soft_prompts"))
        ranges.check_choice("algorithm.inference", self.inference, ("local", "served"))
        ranges.check_choice("algorithm.head_precision", self.head_precision, get_args(HeadPrecision))
        if self.objective.entropy_coef and self.noise.mode != "flow_noise":
            raise ValueError(
                f"algorithm.objective.entropy_coef={self.objective.entropy_coef} needs noise.mode=flow_noise:"
                f" with noise.mode={self.noise.mode} the entropy is constant. Set it to 0."
            )
        target, bound = self.optimizer.target_kl, self.watchdog.max_kl
        if target is not None and bound is not None and target > bound:
            raise ValueError(
                f"algorithm.optimizer.target_kl={target} is above watchdog.max_kl={bound}: an update would "
                "be taken back before its steps are stopped. Lower the one, or raise the other."
            )
        rollout = self.rollout
        if self.advantage.estimator != "group":
            if rollout.group_return_range is not None:
                raise ValueError(
                    "algorithm.rollout.group_return_range is for advantage.estimator=group; with "
                    f"{self.advantage.estimator} there are no groups. Unset it."
                )
            return
        if rollout.group_size < 2 or rollout.episodes_per_update % rollout.group_size:
            raise ValueError(
                "algorithm.advantage.estimator=group needs algorithm.rollout.group_size ≥ 2 that divides "
                f"rollout.episodes_per_update={rollout.episodes_per_update}; got {rollout.group_size}."
            )
        if rollout.task_success_range is not None:
            raise ValueError(
                "algorithm.rollout.task_success_range is for advantage.estimator=gae; with group, "
                "groups whose returns are equal are left out anyway. Unset it."
            )
