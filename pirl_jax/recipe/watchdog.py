"""``algorithm.watchdog``: which updates are taken back, and when a run gives up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pirl_jax.recipe import ranges


@dataclass
class WatchdogConfig:
    """An update that is not finite or leads far away is rejected: the state is the one before it."""

    max_kl: float | None = 1.0
    """Largest approximate KL of an update, by its last epoch; null: any. ``optimizer.target_kl`` is what an
    update should stop at, this is what it must not have passed."""
    patience: int = 3
    """Rejected updates in a row after which the run ends."""
    keep: Literal["auto", "always", "never"] = "auto"
    """Whether the state before an update is kept in host memory while it runs: to go back to, and to be saved
    when a signal or a fault ends the update. auto: unless JAX runs on a CPU whose memory has no room for it
    beside learner and actors (``algorithm.launch.actors``)."""

    def __post_init__(self) -> None:
        ranges.check("watchdog", self)
