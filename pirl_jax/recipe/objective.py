"""``algorithm.objective``: what a policy step descends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pirl_jax.recipe import ranges


@dataclass
class ObjectiveConfig:
    """PPO's clipped objective and what is added to it."""

    clip_ratio: float = 0.2
    """ε: a probability ratio beyond 1 ± ε has no gradient that would drive it further."""
    dual_clip: float | None = None
    """Ratio above which a chunk with a negative advantage pulls no more, e.g. 3; None: it pulls harder and
    harder."""
    aggregation: Literal["chunk", "action"] = "chunk"
    """What a probability ratio is taken of. ``chunk``: of a whole chunk, πRL's choice; ``action``: of each
    executed action given those before it, all with the chunk's advantage."""
    loss_weighting: Literal["chunk", "episode"] = "chunk"
    """``chunk``: all chunks count the same in the losses of policy and critic, and so long episodes more than
    short ones. ``episode``: all episodes do, πRL's choice."""
    decoupled: bool = False
    """For stale episodes (Hilton et al. 2022): the ratio, its clipping and the KL stop refer to the policy at
    the start of the update, and points are weighted by how much likelier it makes them than the policy that
    acted. Otherwise all refer to the policy that acted."""
    max_behaviour_weight: float = 5.0
    """Cap of those weights."""
    behaviour_log_prob: Literal["learner", "actor"] = "learner"
    """Whose log-density of a chunk stands for the policy that acted in those weights. ``learner``: the one
    recomputed in ``head_precision``. ``actor``: the one that the actor drew it with, in float32, so that the
    weights undo the difference in precision as well (truncated importance sampling, Ionides 2008)."""
    reference_kl_coef: float = 0.0
    """Weight of the exact KL(π ‖ π at the start of the run) of a chunk, against forgetting."""
    entropy_coef: float = 0.0
    """``noise.mode=flow_noise``, whose standard deviation is learned: weight of the entropy in nats, averaged
    over a chunk's noised numbers. πRL takes 0.005 of an average that has ε₀'s constant entropy among it: its
    coefficient is worth K/(K+1) of the same here."""

    def __post_init__(self) -> None:
        ranges.check("objective", self)
        if self.behaviour_log_prob == "actor" and not self.decoupled:
            raise ValueError(
                "algorithm.objective.behaviour_log_prob=actor needs objective.decoupled=true: the clipped "
                "ratio is of the learner's densities, and only decoupled are there weights beside it."
            )
