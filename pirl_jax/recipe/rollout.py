"""``algorithm.rollout``: which episodes make an update."""

from __future__ import annotations

from dataclasses import dataclass

from pirl_jax.recipe import ranges


@dataclass
class RolloutConfig:
    """Which episodes make an update."""

    episodes_per_update: int = 512
    """Episodes that an update learns from, after those are dropped that teach nothing."""
    max_chunks: int = 64
    """Longest episode in chunks; longer ones are rejected."""
    max_staleness: int = 2
    """Updates that the policy of an episode may lie behind the one that learns from it. 0: actors wait while
    the learner updates. It limits which episodes may start; none is dropped for its age. A chunk that is
    older all the same, since parameters came late, is masked."""
    group_size: int = 1
    """Episodes from one initial state, spread over the actors."""
    group_return_range: tuple[float, float] | None = None
    """``group``: also drop, and count, groups whose mean return lies outside, e.g. of (0.1, 0.9)."""
    task_success_range: tuple[float, float] | None = None
    """``gae`` with several tasks: those whose recent success rate lies outside, e.g. of (0.05, 0.95), teach
    nothing. Their episodes are dropped, and counted, until the rate is inside again."""
    task_window: int = 32
    """Episodes of a task that make its recent success rate."""

    def __post_init__(self) -> None:
        ranges.check("rollout", self)
