"""X-VLA's supervised optimiser with its parameter groups."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from pirl_jax.optim import adamw_direction, clip_like_torch
from pirl_jax.recipe.ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, Range
from pirl_jax.typing import Array, PyTree

VLM_LR_SCALE = 0.1
"""X-VLA trains its vision-language model at a tenth of the learning rate and of the weight decay."""


_RANGES: Mapping[str, Range] = {
    **dict.fromkeys(("lr", "decay_lr", "peak_lr", "weight_decay"), NOT_NEGATIVE),
    **dict.fromkeys(("soft_prompt_lr_scale", "soft_prompt_warmup_lr_scale", "vlm_lr_scale"), NOT_NEGATIVE),
    **dict.fromkeys(("warmup_steps", "decay_steps"), NOT_NEGATIVE),
    "betas": BELOW_ONE,
    "eps": POSITIVE,
}


@dataclass(frozen=True)
class SupervisedOptimizer:
    """X-VLA's supervised training: LeRobot's ``XVLAAdamWConfig``, scheduler and freezing flags in one."""

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0
    grad_clip_norm: float = 10.0
    soft_prompt_lr_scale: float = 1.0
    soft_prompt_warmup_lr_scale: float | None = None
    """Replaces ``soft_prompt_lr_scale`` when set. LeRobot's scheduler only multiplies it, never lifts it."""
    schedule_type: str = "cosine_decay_with_warmup"
    """Or ``cosine_annealing_with_warmup`` or ``constant_with_warmup``: LeRobot's names."""
    warmup_steps: int = 1_000
    decay_steps: int = 30_000
    """Of ``cosine_decay_with_warmup``, like the next two."""
    decay_lr: float = 2.5e-6
    peak_lr: float | None = None
    """What ``decay_lr`` is relative to; None: ``lr``."""
    freeze_vision_encoder: bool = False
    freeze_language_encoder: bool = False
    train_policy_transformer: bool = True
    train_soft_prompts: bool = True
    vlm_lr_scale: float = VLM_LR_SCALE
    """1 for a vision-language model that is trained from scratch."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: One is out of range; says which.
        """
        for name, allowed in _RANGES.items():
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and number not in allowed:
                    raise ValueError(
                        f"the supervised optimizer's or scheduler's {name} must be {allowed}; got {value}."
                    )

    @classmethod
    def from_config(cls, config: Any) -> SupervisedOptimizer:
        """Read the ``optimizer_*``, ``scheduler_*`` and freezing fields of an X-VLA config."""
        return cls(
            lr=config.optimizer_lr,
            betas=tuple(config.optimizer_betas),
            eps=config.optimizer_eps,
            weight_decay=config.optimizer_weight_decay,
            grad_clip_norm=config.optimizer_grad_clip_norm,
            soft_prompt_lr_scale=config.optimizer_soft_prompt_lr_scale,
            soft_prompt_warmup_lr_scale=config.optimizer_soft_prompt_warmup_lr_scale,
            warmup_steps=config.scheduler_warmup_steps,
            decay_steps=config.scheduler_decay_steps,
            decay_lr=config.scheduler_decay_lr,
            freeze_vision_encoder=config.freeze_vision_encoder,
            freeze_language_encoder=config.freeze_language_encoder,
            train_policy_transformer=config.train_policy_transformer,
            train_soft_prompts=config.train_soft_prompts,
        )

    def group(self, name: str) -> str:
        """``vlm``, ``soft_prompts`` or ``other``.

        LeRobot looks for the substring "vlm": the head's own ``vlm_proj`` is in the group too.
        """
        if "vlm" in name.lower():
            return "vlm"
        return "soft_prompts" if "soft_prompt" in name.lower() else "other"

    def schedule(self, num_training_steps: int) -> optax.Schedule:
        """Multiplier of every group's lr: linear warm-up, and what LeRobot's schedule of that name does then.

        ``cosine_decay_with_warmup`` ends at ``decay_lr``: it shrinks with its warm-up in proportion when the
        training is shorter than ``decay_steps``, and its cosine counts from step 0. The cosine of
        ``cosine_annealing_with_warmup`` begins where the warm-up ends, and ends at 0 with the training.
        """
        warmup, decay = self.warmup_steps, self.decay_steps
        if self.schedule_type != "cosine_decay_with_warmup":
            return self._from_zero(num_training_steps)
        if num_training_steps < decay:
            warmup, decay = int(warmup * (num_training_steps / decay)), num_training_steps
        floor = self.decay_lr / (self.lr if self.peak_lr is None else self.peak_lr)

        def multiplier(count: ArrayLike) -> Array:
            step = jnp.asarray(count, float)
            warm = (step + 1) / (warmup + 1)
            cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step, decay) / decay))
            return jnp.where(step < warmup, warm, (1 - floor) * cosine + floor)

        return multiplier

    def _from_zero(self, num_training_steps: int) -> optax.Schedule:
        """The two schedules whose warm-up begins with a step of length 0."""
        warmup, annealed = self.warmup_steps, self.schedule_type == "cosine_annealing_with_warmup"

        def multiplier(count: ArrayLike) -> Array:
            step = jnp.asarray(count, float)
            progress = (step - warmup) / max(1, num_training_steps - warmup)
            after = 0.5 * (1 + jnp.cos(jnp.pi * progress)) if annealed else jnp.ones_like(step)
            return jnp.where(step < warmup, step / max(1, warmup), after)

        return multiplier

    def build(self, params: PyTree, num_training_steps: int) -> optax.GradientTransformation:
        """Build the optimiser of ``params``: those that are trained (``xvla.trainable.trained_part``).

        Args:
            params: Nested dict with top keys ``vlm`` and ``transformer``, or one of them.
            num_training_steps: Steps of the whole training, to which the schedule shrinks.
        """
        schedule = self.schedule(num_training_steps)
        soft_prompt_scale = (
            self.soft_prompt_lr_scale
            if self.soft_prompt_warmup_lr_scale is None
            else self.soft_prompt_warmup_lr_scale
        )

        def adamw(lr: float, weight_decay: float) -> optax.GradientTransformation:
            return optax.chain(
                adamw_direction(self.betas, self.eps, weight_decay),
                optax.scale_by_schedule(lambda step: -lr * schedule(step)),
            )

        groups: dict[Hashable, optax.GradientTransformation] = {
            "vlm": adamw(self.lr * self.vlm_lr_scale, self.weight_decay * self.vlm_lr_scale),
            "soft_prompts": adamw(self.lr * soft_prompt_scale, self.weight_decay),
            "other": adamw(self.lr, self.weight_decay),
        }
        return optax.chain(
            clip_like_torch(self.grad_clip_norm),
            optax.partition(groups, self.labels(params)),
        )

    def labels(self, params: PyTree) -> PyTree:
        """The group's name in place of each parameter."""
        return jax.tree_util.tree_map_with_path(
            lambda path, _: self.group(".".join(str(entry.key) for entry in path)), params
        )
