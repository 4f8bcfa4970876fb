"""Every number of a report against a reference that is computed in another way, or published."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from bridge.evaluate.statistics import mcnemar_exact, paired_difference
from pirl_jax.training.interval import wilson

Z95 = 1.959963984540054
COUNTS = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # statsmodels.stats.proportion.proportion_confint(method="wilson")
    [(71, 200, 0.2919, 0.4235), (0, 50, 0.0, 0.0713), (50, 50, 0.9287, 1.0), (490, 500, 0.9636, 0.9891)],
)
def test_wilson_intervals_are_the_published_ones(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=2e-4)


@given(st.integers(1, 500), st.data())
def test_wilsons_limits_are_the_rates_that_the_score_test_just_accepts(n, data):
    successes = data.draw(st.integers(0, n))
    rate = successes / n

    def score(p):
        return (rate - p) ** 2 - Z95**2 * p * (1 - p) / n

    # At a rate of 0 or 1 the other root of the score is the rate itself.
    low = brentq(score, 0, min(rate, 1 - 1e-9), xtol=1e-15) if successes else 0.0
    high = brentq(score, max(rate, 1e-9), 1, xtol=1e-15) if successes < n else 1.0
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match="wilson"):
        wilson(successes, n)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    # Signs are those of A − B. The first from Fagerland et al., Statistics in Medicine 33 (2014); the others
    # from Newcombe's own table for method 10 (1998).
    [
        ((1, 1, 7, 12), -0.507, -0.026),
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((20, 12, 2, 16), 0.0562, 0.3292),
    ],
)
def test_paired_intervals_are_the_published_ones(counts, low, high):
    difference, limits = paired_difference(*counts)
    assert difference == pytest.approx((counts[2] - counts[1]) / sum(counts))
    assert limits == pytest.approx((-high, -low), abs=5e-4)


@given(COUNTS)
def test_the_paired_interval_is_newcombes_formula(counts):
    a, b, c, d = counts
    n = a + b + c + d
    (l1, u1), (l2, u2) = wilson(a + c, n), wilson(a + b, n)  # 1 is B, 2 is A
    p1, p2 = (a + c) / n, (a + b) / n
    numerator = a * d - b * c
    if a * d > b * c:
        numerator = max(a * d - b * c - n / 2, 0)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    phi = 0.0 if margins == 0 else numerator / math.sqrt(margins)
    dl2 = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    du2 = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    want = (p1 - p2 - math.sqrt(max(dl2, 0)), p1 - p2 + math.sqrt(max(du2, 0)))
    assert paired_difference(*counts)[1] == pytest.approx(want, abs=1e-12)


@given(COUNTS)
def test_a_paired_interval_holds_its_difference_and_turns_with_the_sides(counts):
    a, b, c, d = counts
    difference, (low, high) = paired_difference(a, b, c, d)
    assert -1 <= low <= difference <= high <= 1
    turned, limits = paired_difference(a, c, b, d)
    assert (turned, *limits) == pytest.approx((-difference, -high, -low), abs=1e-12)


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (1, -1, 1, 1)])
def test_no_pairs_have_no_difference(counts):
    with pytest.raises(ValueError, match="paired_difference"):
        paired_difference(*counts)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemars_p_is_twice_the_binomial_tail(b, c):
    n = b + c
    tail = sum(math.comb(n, k) for k in range(min(b, c) + 1)) / 2**n
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_mcnemar_refuses_negative_counts():
    with pytest.raises(ValueError, match="mcnemar"):
        mcnemar_exact(-1, 2)
