"""How often the intervals hold the truth, in a world whose truth is known.

A share of N repetitions has a standard error of √(.95 · .05 / N): .0069 for 1000, so that .92 to .98 is four
of them around .95. Runs vary as a normal distribution does, which Student's interval asks for: where three
runs vary as a uniform one, it holds the truth in .93 of 5000 such worlds.
"""

import numpy as np
import pytest

from bridge.evaluate.grid import Grid
from bridge.evaluate.resampling import bootstrap, interquartile_mean
from bridge.evaluate.spread import difference, rate
from pirl_jax.training.interval import wilson

N, TASKS, EPISODES = 1000, 10, 50
NAMES = tuple(("suite", task) for task in range(TASKS))
GOOD = (0.92, 0.98)


def played(random: np.random.Generator, p: np.ndarray) -> Grid:
    return Grid(NAMES, random.binomial(EPISODES, p), np.full(TASKS, EPISODES))


def trained(random: np.random.Generator, tasks: np.ndarray, runs: int) -> np.ndarray:
    """Success of runs that are better or worse on all tasks, and a little on each; `tasks` on average."""
    return tasks + random.normal(0, 0.05, (runs, 1)) + random.normal(0, 0.02, (runs, TASKS))


def holds(interval, truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def resampled_at_every_level(random: np.random.Generator, grid: Grid, draws: int = 200) -> np.ndarray:
    """The percentiles of a bootstrap of runs, then episodes."""
    runs = random.integers(len(grid.successes), size=(draws, len(grid.successes)))
    counts = random.binomial(EPISODES, grid.rates[runs])
    return np.quantile(counts.mean((1, 2)) / EPISODES, [0.025, 0.975])


def test_of_one_policy_each_interval_covers_what_it_says():
    random = np.random.default_rng(0)
    these, new, pooled_these, pooled_new = 0, 0, 0, 0
    for _ in range(N):
        tasks = random.beta(1.5, 1, TASKS)
        grid = played(random, tasks[None])
        found, pooled = rate(grid), wilson(int(grid.successes.sum()), TASKS * EPISODES)
        these += holds(found["ci95"], tasks.mean())
        new += holds(found["ci95_new_tasks"], 0.6)
        pooled_these += holds(pooled, tasks.mean())
        pooled_new += holds(pooled, 0.6)
    assert GOOD[0] <= these / N <= GOOD[1]
    assert GOOD[0] <= new / N <= GOOD[1]
    assert these < pooled_these  # which counts the tasks' differences as chance of the episodes
    assert pooled_new / N < 0.5  # Wilson's interval of all episodes is no statement about other tasks


def test_of_three_runs_each_interval_covers_what_it_says():
    random = np.random.default_rng(1)
    these, new, percentiles = 0, 0, 0
    for _ in range(N):
        tasks = random.uniform(0.25, 0.75, TASKS)
        grid = played(random, trained(random, tasks, 3))
        found = rate(grid)
        these += holds(found["ci95"], tasks.mean())
        new += holds(found["ci95_new_tasks"], 0.5)
        percentiles += holds(resampled_at_every_level(random, grid), tasks.mean())
    assert GOOD[0] <= these / N <= GOOD[1]
    assert GOOD[0] <= new / N <= GOOD[1]
    assert percentiles / N < 0.85  # three runs are too few for percentiles


def test_differences_of_three_runs_to_a_baseline_of_three_cover_theirs():
    random = np.random.default_rng(2)
    these, new = 0, 0
    for _ in range(N):
        tasks, gains = random.uniform(0.25, 0.5, TASKS), random.uniform(0.0, 0.25, TASKS)
        sides = [played(random, trained(random, mean, 3)) for mean in (tasks + gains, tasks)]
        found = difference(*sides).interval(-1, 1)
        these += holds(found["ci95"], gains.mean())
        new += holds(found["ci95_new_tasks"], 0.125)
    assert GOOD[0] <= these / N <= GOOD[1]
    assert GOOD[0] <= new / N <= GOOD[1]


@pytest.mark.parametrize("runs", [1, 3])
def test_interquartile_means_cover_theirs(runs):
    """300 repetitions have a standard error of .013: four of them are .05."""
    random = np.random.default_rng(3)
    these, new, n = 0, 0, 300
    for _ in range(n):
        tasks = random.uniform(0.25, 0.75, TASKS)
        # One run is a policy like any other: what it is good at is all there is to know.
        p = trained(random, tasks, runs) if runs > 1 else tasks[None]
        truth = interquartile_mean(trained(random, tasks, 2000) if runs > 1 else p)
        found = bootstrap(interquartile_mean, [played(random, p)], draws=300).interval(0, 1)
        these += holds(found["ci95"], truth)
        new += holds(found["ci95_new_tasks"], 0.5)
    assert 0.90 <= these / n < 1
    assert 0.90 <= new / n < 1
