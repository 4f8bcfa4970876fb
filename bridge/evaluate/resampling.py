"""Scores that are no means, by a hierarchical bootstrap: interquartile mean, probability of improvement.

R. Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, 2021 (arXiv
2108.13264, the package ``rliable``). Its bootstrap draws runs anew for every task, as if each task had been
trained for alone; one policy plays all of ours, so a run is drawn with all its tasks.

Each level is resampled alone and gives its part of the variance (``spread``). A bootstrap of n runs or tasks
finds (n − 1)/n of a mean's variance, which is put right: with three runs it is a third.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import trim_mean

from bridge.evaluate.grid import Grid
from bridge.evaluate.spread import Part, Spread

DRAWS = 2000
"""With which an interval's width is known to 1.6 % of itself: 1/√(2 · 2000)."""
_SEED = 0
"""The same outcomes have the same interval, always."""

Statistic = Callable[..., np.ndarray]
"""Takes the rates of each side, [..., R, T]; returns [...]."""


def interquartile_mean(rates: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of all runs' rates on all tasks, [..., R, T] → [...]."""
    return trim_mean(rates.reshape(*rates.shape[:-2], -1), 0.25, axis=-1)


def probability_of_improvement(rates: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Return how probable it is that a run does better on a task than a run of the baseline.

    Over all pairs of runs and all tasks; a tie is half a win (Mann and Whitney's U over the number of pairs).

    Args:
        rates: [..., R, T].
        baseline: [..., S, T].
    """
    wins = [
        ((rates > run) + 0.5 * (rates == run)).mean(axis=(-1, -2))
        for run in np.moveaxis(baseline, -2, 0)[..., None, :]
    ]
    return np.mean(wins, axis=0)


def bootstrap(statistic: Statistic, sides: Sequence[Grid], draws: int = DRAWS) -> Spread:
    """Return a statistic of one side or two, of the same tasks, with the variance that each level gives it.

    Args:
        statistic: Of the sides' rates.
        sides: One grid, or two.
        draws: Of each level.
    """
    random = np.random.default_rng(_SEED)
    rates = [side.rates for side in sides]

    def part(replaced: dict[int, np.ndarray], n: int | None = None) -> Part:
        """Of what the statistic becomes with other rates of some sides; ``n`` were to be drawn from."""
        values = statistic(*(replaced.get(i, one[None]) for i, one in enumerate(rates)))
        variance = float(values.var(ddof=1))
        return Part(variance) if n is None else Part(variance * n / (n - 1), n - 1)

    def of_episodes(i: int, side: Grid) -> Part:
        shape = (draws, *side.successes.shape)
        return part({i: random.binomial(side.episodes, side.guarded, shape) / side.episodes})

    def of_runs(i: int, n: int) -> Part | None:
        return part({i: rates[i][random.integers(n, size=(draws, n))]}, n) if n > 1 else None

    def of_tasks(columns: np.ndarray) -> Part:
        chosen = np.tile(np.arange(len(sides[0].tasks)), (draws, 1))
        chosen[:, columns] = random.choice(columns, size=(draws, len(columns)))
        return part({i: np.moveaxis(one[:, chosen], 0, 1) for i, one in enumerate(rates)}, len(columns))

    suites = list(sides[0].suites.values())
    return Spread(
        value=float(statistic(*rates)),
        episodes=tuple(of_episodes(i, side) for i, side in enumerate(sides)),
        runs=tuple(of_runs(i, len(one)) for i, one in enumerate(rates)),
        tasks=tuple(map(of_tasks, suites)) if min(map(len, suites)) > 1 else None,
    )
