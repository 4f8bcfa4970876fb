"""``algorithm.advantage``: how good a chunk was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pirl_jax.recipe import ranges


@dataclass
class AdvantageConfig:
    """How good a chunk was, compared with what was expected."""

    estimator: Literal["gae", "group"] = "gae"
    """``gae`` with the critic (PPO), or ``group`` without one (GRPO): an episode's return relative to those
    of the same initial state."""
    gamma: float = 0.99
    """Discount a chunk, not a control step."""
    gae_lambda: float = 0.95
    """``gae``: λ, also a chunk: 0 trusts the critic, 1 the episode's own return."""
    bootstrap_truncation: bool = True
    """``gae``: an episode that a time limit ends goes on being worth what the critic makes of its last
    observation. False: it is worth nothing more, as in πRL's LIBERO runs."""
    normalize: bool = True
    """Of ``gae``: over all chunks of the batch, weighted as in the loss."""
    min_std: float = 1e-3
    """Advantages are never divided by less, and a ``group`` whose returns differ by less teaches nothing: its
    episodes are dropped and counted."""

    def __post_init__(self) -> None:
        ranges.check("advantage", self)
