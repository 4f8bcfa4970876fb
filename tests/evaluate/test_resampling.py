"""Interquartile mean and probability of improvement, against rliable's values and SciPy's test."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from bridge.evaluate.grid import Grid
from bridge.evaluate.resampling import bootstrap, interquartile_mean, probability_of_improvement

A = np.asarray([[0.8, 0.9, 0.4], [0.7, 0.95, 0.5], [0.75, 1.0, 0.2]])
B = np.asarray([[0.5, 0.9, 0.3], [0.7, 0.85, 0.6]])


def test_they_are_rliables():
    # rliable 1.2.0: metrics.aggregate_iqm and metrics.probability_of_improvement
    assert interquartile_mean(A) == pytest.approx(0.73)
    assert probability_of_improvement(A, B) == pytest.approx(0.7222222222222222)


def test_improvement_is_mann_and_whitneys_u_over_the_pairs():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 6, (4, 5)) / 5, random.integers(0, 6, (3, 5)) / 5  # with ties
    u = [mannwhitneyu(a[:, task], b[:, task]).statistic for task in range(5)]
    assert probability_of_improvement(a, b) == pytest.approx(np.mean(u) / 12)


def test_draws_stand_in_front():
    drawn = np.stack([A, A[::-1], np.zeros_like(A)])
    assert interquartile_mean(drawn) == pytest.approx([0.73, 0.73, 0.0])
    assert probability_of_improvement(drawn, B[None]) == pytest.approx([0.7222222, 0.7222222, 0.0], abs=1e-6)


def test_a_run_is_drawn_with_all_its_tasks():
    """Two runs, one good at everything and one bad: half of the draws of two are all one run."""
    grid = Grid(tuple(("suite", task) for task in range(4)), np.asarray([[9] * 4, [1] * 4]), np.full(4, 10))
    spread = bootstrap(interquartile_mean, [grid])
    # Means .9, .1 with a quarter each and .5 with a half: variance .08, and Bessel's 2/1.
    assert spread.runs[0].variance == pytest.approx(0.16, rel=0.05)
    assert spread.runs[0].degrees == 1


def test_the_same_outcomes_have_the_same_interval():
    grid = Grid((("s", 0), ("s", 1)), np.asarray([[3, 5], [4, 2]]), np.asarray([6, 6]))
    first, second = (bootstrap(interquartile_mean, [grid]).interval(0, 1) for _ in range(2))
    assert first == second
    assert first["ci95"][0] >= 0
    assert first["ci95"][1] <= 1
