"""Intervals over runs and tasks, against SciPy's tests and a bootstrap."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import t, ttest_ind, ttest_rel

from bridge.evaluate.grid import Grid
from bridge.evaluate.resampling import bootstrap
from bridge.evaluate.spread import Spread, difference, rate
from pirl_jax.training.interval import wilson

RUNS = [[31, 44, 12, 25], [35, 48, 20, 27], [28, 40, 9, 26]]
OTHERS = [[20, 41, 6, 24], [26, 33, 15, 20], [15, 39, 8, 17], [29, 38, 4, 22]]


def grid(successes, episodes=50, suites=()):
    """Counts [R, T] with as many episodes in each cell; ``suites``: their numbers of tasks, else one."""
    counts = np.asarray(successes)
    sizes = suites or (counts.shape[1],)
    tasks = tuple((f"suite{k}", task) for k, size in enumerate(sizes) for task in range(size))
    return Grid(tasks, counts, np.full(len(tasks), episodes))


@pytest.mark.parametrize(("successes", "n"), [(0, 50), (31, 50), (50, 50), (1, 1)])
def test_of_one_run_and_one_task_the_interval_is_wilsons(successes, n):
    found = rate(grid([[successes]], n))
    assert found["ci95"] == pytest.approx(wilson(successes, n), abs=1e-12)
    assert found["ci95_new_tasks"] is None


def test_tasks_that_are_alike_are_one_large_task():
    assert rate(grid([[30] * 10]))["ci95"] == pytest.approx(wilson(300, 500), abs=1e-12)
    assert rate(grid([[50] * 10]))["ci95"] == pytest.approx(wilson(500, 500), abs=1e-12)


def test_fixed_tasks_vary_by_their_own_binomials():
    """A score interval for the variance that independent binomials of different tasks have."""
    counts, n = np.asarray([50, 45, 20, 3, 0]), 50
    guarded = (counts + 1) / (n + 2)
    own = np.mean(guarded * (1 - guarded)) / (len(counts) * n)
    effective = guarded.mean() * (1 - guarded.mean()) / own
    assert effective > len(counts) * n  # one large task would vary more
    found = rate(grid([counts]))["ci95"]
    assert found == pytest.approx(score_interval(counts.mean() / n, 1.959963984540054**2 / effective))


def score_interval(value, weight):
    def score(p):
        return (value - p) ** 2 - weight * p * (1 - p)

    return [brentq(score, 0, value, xtol=1e-15), brentq(score, value, 1, xtol=1e-15)]


def test_several_runs_are_as_sure_as_their_means_by_students_t():
    counts = np.asarray(RUNS)
    means = counts.mean(1) / 50
    error = t.ppf(0.975, 2) * means.std(ddof=1) / math.sqrt(3)
    weight = error**2 / (means.mean() * (1 - means.mean()))
    assert rate(grid(counts))["ci95"] == pytest.approx(score_interval(means.mean(), weight))


def test_new_tasks_are_as_uncertain_as_tasks_differ():
    counts = np.asarray(RUNS[:1])
    rates = counts[0] / 50
    error = t.ppf(0.975, 3) * rates.std(ddof=1) / 2
    weight = error**2 / (rates.mean() * (1 - rates.mean()))
    assert rate(grid(counts))["ci95_new_tasks"] == pytest.approx(score_interval(rates.mean(), weight))


def test_a_difference_of_runs_is_welchs_test_on_these_tasks():
    a, b = grid(RUNS), grid(OTHERS)
    welch = ttest_ind(np.mean(RUNS, 1) / 50, np.mean(OTHERS, 1) / 50, equal_var=False)
    found = difference(a, b)
    assert found.value == pytest.approx(np.mean(RUNS) / 50 - np.mean(OTHERS) / 50)
    assert found.interval(-1, 1)["ci95"] == pytest.approx(list(welch.confidence_interval()))
    assert found.p == pytest.approx(welch.pvalue)


def test_a_difference_of_two_policies_on_new_tasks_is_the_paired_t_test_over_tasks():
    a, b = [[10, 44, 12, 45, 30]], [[2, 20, 11, 15, 28]]
    paired = ttest_rel(np.divide(a[0], 50), np.divide(b[0], 50))
    found = difference(grid(a), grid(b)).interval(-1, 1)
    assert found["ci95_new_tasks"] == pytest.approx(list(paired.confidence_interval()))


def test_the_average_of_suites_weighs_suites_not_tasks():
    both = grid([[40, 40, 40, 40, 10, 0]], suites=(4, 2))
    assert rate(both)["success"] == pytest.approx((0.8 + 0.1) / 2)
    assert rate(both, pooled=True)["success"] == pytest.approx(170 / 300)
    guarded = (np.asarray([40, 40, 40, 40, 10, 0]) + 1) / 52
    weights = np.asarray([1 / 8] * 4 + [1 / 4] * 2)
    variance = np.sum(weights**2 * guarded * (1 - guarded) / 50)
    mean = guarded @ weights
    want = score_interval(0.45, 1.959963984540054**2 * variance / (mean * (1 - mean)))
    assert rate(both)["ci95"] == pytest.approx(want)


@pytest.mark.parametrize("suites", [(4,), (3, 1), (2, 2)])
@pytest.mark.parametrize("sides", [[RUNS], [RUNS, OTHERS], [RUNS[:1], OTHERS]])
def test_a_means_variances_are_those_that_a_bootstrap_finds(sides, suites):
    """Level by level; the bootstrap draws for 2 % of a variance, and knows nothing of the closed form."""
    grids = [grid(side, suites=suites) for side in sides]
    columns = list(grids[0].suites.values())

    def means(rates):
        return np.mean([rates[..., one].mean((-1, -2)) for one in columns], axis=0)

    found = bootstrap(lambda a, b=None: means(a) - (0 if b is None else means(b)), grids, draws=20_000)
    exact = difference(*grids) if len(grids) == 2 else mean_of(grids[0])
    assert found.value == pytest.approx(exact.value)
    for level in ("episodes", "runs", "tasks"):
        drawn, closed = getattr(found, level), getattr(exact, level)
        assert (drawn is None) == (closed is None)
        for one, other in zip(drawn or (), closed or (), strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert one.variance == pytest.approx(other.variance, rel=0.06)  # 2 % thrice
                assert one.degrees == other.degrees


def mean_of(one: Grid) -> Spread:
    nothing = grid(np.zeros((1, len(one.tasks)), int), 10**9, [len(c) for c in one.suites.values()])
    whole = difference(one, nothing)
    return Spread(whole.value, whole.episodes[:1], whole.runs[:1], whole.tasks)


def test_runs_that_happen_to_agree_are_no_surer_than_their_episodes():
    alike = rate(grid([[30, 40]] * 3))
    assert alike["ci95"] == pytest.approx(rate(grid([[90, 120]], 150))["ci95"], abs=2e-4)
    low, high = rate(grid([[50, 50]] * 3))["ci95"]
    assert (low, high) == pytest.approx(wilson(300, 300), abs=1e-12)


@pytest.mark.parametrize("runs", [RUNS, RUNS[:1], [[50, 50, 50, 49]], [[0, 1, 0, 0], [0, 0, 0, 0]]])
def test_new_tasks_are_never_surer_than_these(runs):
    found = rate(grid(runs))
    assert found["ci95_new_tasks"][0] <= found["ci95"][0] <= found["success"]
    assert found["success"] <= found["ci95"][1] <= found["ci95_new_tasks"][1]


def test_one_task_of_a_suite_tells_nothing_of_others():
    assert rate(grid([[30, 40, 20]], suites=(2, 1)))["ci95_new_tasks"] is None
    assert difference(grid([[30]]), grid([[20]])).interval(-1, 1)["ci95_new_tasks"] is None
