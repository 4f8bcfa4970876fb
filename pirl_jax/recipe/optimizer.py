"""``algorithm.optimizer``: how an update descends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pirl_jax.recipe import ranges


@dataclass
class OptimizerConfig:
    """Epochs of minibatches, AdamW, and what holds the steps near the policy that acted."""

    num_epochs: int = 4
    """Passes of an update over its chunks."""
    minibatch_size: int = 2048
    """Chunks of a step, of policy and critic alike."""
    microbatch_size: int | Literal["auto"] = "auto"
    """Points of a minibatch that are in work at a time, which bounds memory and changes nothing else:
    gradients are added up; a step, its clipping, its KL and its metrics are of the minibatch. So many
    observations are valued at a time, too."""
    lr: float = 5e-6
    """The policy's; the critic's is ``critic.lr``."""
    lr_warmup_steps: int = 0
    """Policy steps over which lr rises from 0. Adam's first step has the full length in every parameter,
    whatever the gradient: unwarmed, it alone may pass ``target_kl``."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of policy and critic: decay of AdamW's averages of the gradient and of its square, a step."""
    eps: float = 1e-8
    """Of policy and critic: added to the root of the averaged squares."""
    weight_decay: float = 0.0
    """Of policy and critic: decoupled, times the learning rate."""
    grad_clip_norm: float = 1.0
    """Of policy and critic, each for itself: largest norm of a step's gradient."""
    target_kl: float | None = None
    """Stop the epochs of an update once a minibatch's approximate KL exceeds this."""
    adaptive_lr: bool = False
    """Steer the policy's learning rate by the last update's KL: shrink above ``target_kl``, grow below a
    third of it."""

    def __post_init__(self) -> None:
        ranges.check("optimizer", self)
        if self.microbatch_size is None:
            raise ValueError("algorithm.optimizer.microbatch_size must be auto or a number; got null.")
        if self.adaptive_lr and self.target_kl is None:
            raise ValueError(
                "algorithm.optimizer.adaptive_lr needs algorithm.optimizer.target_kl; set it, e.g. to 0.05."
            )
