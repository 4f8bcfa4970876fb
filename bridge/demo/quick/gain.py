"""Whether a run's last updates succeed more often than its first: counts, and Fisher's exact test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pirl_jax.training.interval import wilson
from pirl_jax.training.metrics import updates

STRETCH = 3
"""Updates at each end of a run that are put together."""


@dataclass(frozen=True)
class Count:
    """Episodes of some updates, played by the policy as it explores."""

    successes: int
    episodes: int

    @property
    def rate(self) -> float:
        """Share of successes."""
        return self.successes / self.episodes

    def summary(self) -> dict[str, Any]:
        """``{"success", "n", "ci95"}`` with Wilson's interval, which takes the episodes for independent."""
        return {
            "success": self.rate,
            "n": self.episodes,
            "ci95": list(wilson(self.successes, self.episodes)),
        }


@dataclass(frozen=True)
class Gain:
    """The first updates of a run beside its last."""

    first: Count
    last: Count

    @property
    def p_value(self) -> float:
        """Of Fisher's exact test, one-sided: that so many of the successes fall to the last by chance.

        It takes all episodes for independent draws. Those of an update share a policy, and each policy of a
        run follows from the one before: p speaks for this run, and says nothing of how much runs differ.
        """
        from scipy.stats import fisher_exact  # takes seconds to import, for which nobody has to wait before

        counts = [[each.successes, each.episodes - each.successes] for each in (self.last, self.first)]
        test: Any = fisher_exact(counts, alternative="greater")
        return float(test.pvalue)


def gain(rows: Sequence[Mapping[str, Any]]) -> Gain:
    """Compare the first ``STRETCH`` updates of ``metrics.jsonl`` with as many at its end.

    Raises:
        ValueError: There are too few updates for both.
    """
    learned = updates(rows)
    if len(learned) < 2 * STRETCH:
        raise ValueError(f"{2 * STRETCH} updates make two ends to compare; the run has {len(learned)}.")
    return Gain(_count(learned[:STRETCH]), _count(learned[-STRETCH:]))


def _count(rows: Sequence[Mapping[str, Any]]) -> Count:
    episodes = [round(row["train/episodes"]) for row in rows]
    successes = [round(row["train/success_rate"] * n) for row, n in zip(rows, episodes)]
    return Count(sum(successes), sum(episodes))
