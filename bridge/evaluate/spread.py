"""How far a score may be from the truth, level by level: episodes, tasks, training runs.

A claim about *these tasks* is about other runs and other episodes of them; one about *new tasks* of the same
kind is about other tasks too. The variances of a claim's levels are added. A level's variance holds what lies
below it: tasks' rates differ by the chance of their episodes as well. To add that once more, as resampling
every level at once does, would count it twice.

Three runs are too few for percentiles or a normal distribution, so intervals are Student's, with the degrees
of freedom that F. E. Satterthwaite (Biometrics Bulletin 1946) gives to a sum of variances. None is narrower
than the interval of the episodes alone, nor one for new tasks than that for these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from bridge.evaluate.grid import Grid
from pirl_jax.training.interval import score_limits


class Part(NamedTuple):
    """What one level adds to a variance."""

    variance: float
    degrees: float = math.inf
    """Degrees of freedom that it is known with."""


@dataclass(frozen=True)
class Spread:
    """A statistic of one side or two, and what its variance is made of."""

    value: float
    episodes: tuple[Part, ...]
    """Of each side: other episodes by the same runs on the same tasks."""
    runs: tuple[Part | None, ...]
    """Of each side: other runs, with their episodes; None: one run tells nothing of others."""
    tasks: tuple[Part, ...] | None
    """Of each suite: other tasks, with their episodes; None: a suite's one task tells nothing of others."""

    def interval(self, low: float, high: float) -> dict[str, list[float] | None]:
        """Return ``ci95`` and ``ci95_new_tasks`` of a statistic that lies in [low, high].

        A side of one run is that policy, of which only the episodes can differ.
        """
        runs, policies = self._sides()
        these = max(_half(self.episodes), _half([*runs, *policies]))
        new = None if self.tasks is None else max(these, _half([*runs, *self.tasks]))
        return {
            name: None if half is None else [max(low, self.value - half), min(high, self.value + half)]
            for name, half in (("ci95", these), ("ci95_new_tasks", new))
        }

    def rate_interval(self, guarded: float) -> dict[str, list[float] | None]:
        """Return ``ci95`` and ``ci95_new_tasks`` of a mean success rate.

        Wilson's, of as many independent episodes as would vary as much (effective sample size: N. Dean and
        M. Pagano, Journal of Survey Statistics and Methodology 2015); so they have a width at 0 and 1.

        Args:
            guarded: The mean of the guarded rates, of which ``episodes`` is the variance.
        """
        runs, _ = self._sides()

        def weight(parts: Sequence[Part], rate: float) -> float:
            return _half(parts) ** 2 / (rate * (1 - rate)) if 0 < rate < 1 else 0.0

        these = max(weight(self.episodes, guarded), weight(runs, self.value))
        new = None if self.tasks is None else max(these, weight([*runs, *self.tasks], self.value))
        return {
            name: None if one is None else list(score_limits(self.value, one))
            for name, one in (("ci95", these), ("ci95_new_tasks", new))
        }

    @property
    def p(self) -> float:
        """Two-sided p value of a difference of 0 on these tasks; below 0.05 where ``ci95`` leaves 0 out."""
        runs, policies = self._sides()
        return max(_p(self.value, self.episodes), _p(self.value, [*runs, *policies]))

    def _sides(self) -> tuple[list[Part], list[Part]]:
        """Return the runs' parts of sides with several, and the episodes' of sides with one."""
        runs = [run for run in self.runs if run is not None]
        return runs, [part for part, run in zip(self.episodes, self.runs) if run is None]


def rate(grid: Grid, pooled: bool = False) -> dict[str, Any]:
    """Return ``{"success", "ci95", "ci95_new_tasks"}`` of a grid.

    Args:
        grid: Of one run or several.
        pooled: Every task counts the same; else every suite, which is the average that papers print.
    """
    weights = _weights(grid, pooled)
    spread = _spread([grid], weights)
    return {"success": spread.value, **spread.rate_interval(float((grid.guarded @ weights).mean()))}


def difference(grid: Grid, baseline: Grid) -> Spread:
    """Return by how much the average of suites is above that of another grid of the same tasks."""
    return _spread([grid, baseline], _weights(grid, pooled=False))


def _weights(grid: Grid, pooled: bool) -> np.ndarray:
    """Return each task's share in the mean, [T]."""
    weights = np.empty(len(grid.tasks))
    for columns in grid.suites.values():
        weights[columns] = 1 / len(grid.tasks) if pooled else 1 / (len(grid.suites) * len(columns))
    return weights


def _spread(sides: Sequence[Grid], weights: np.ndarray) -> Spread:
    """Return the weighted mean of the first side, less that of the second."""
    by_task = sides[0].rates.mean(0)
    if len(sides) == 2:
        by_task = by_task - sides[1].rates.mean(0)
    tasks = [
        Part(weights[columns].sum() ** 2 * by_task[columns].var(ddof=1) / len(columns), len(columns) - 1)
        for columns in sides[0].suites.values()
        if len(columns) > 1
    ]
    return Spread(
        value=float(by_task @ weights),
        episodes=tuple(_of_episodes(side, weights) for side in sides),
        runs=tuple(_of_runs(side.rates @ weights) for side in sides),
        tasks=tuple(tasks) if len(tasks) == len(sides[0].suites) else None,
    )


def _of_episodes(grid: Grid, weights: np.ndarray) -> Part:
    cells = weights**2 * grid.guarded * (1 - grid.guarded) / grid.episodes
    return Part(cells.sum() / len(grid.successes) ** 2)


def _of_runs(means: np.ndarray) -> Part | None:
    return Part(means.var(ddof=1) / len(means), len(means) - 1) if len(means) > 1 else None


def _sum(parts: Sequence[Part]) -> Part:
    variance = sum(part.variance for part in parts)
    uncertain = sum(part.variance**2 / part.degrees for part in parts)
    return Part(variance, variance**2 / uncertain if uncertain else math.inf)


def _half(parts: Sequence[Part]) -> float:
    """Return half of the 95 % interval's width."""
    variance, degrees = _sum(parts)
    return float(stdtrit(degrees, 0.975) * math.sqrt(variance))


def _p(value: float, parts: Sequence[Part]) -> float:
    variance, degrees = _sum(parts)
    if variance == 0:
        return float(value == 0)
    return float(2 * stdtr(degrees, -abs(value) / math.sqrt(variance)))
