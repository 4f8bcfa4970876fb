"""Holm's correction against the principle that it follows from, and against a published program."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.evaluate.holm import adjusted, holm, verdict


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_it_is_the_closed_test_by_bonferroni(p_values):
    """A hypothesis falls when every set of hypotheses that it is in does, by Bonferroni's rule."""
    n = len(p_values)
    sets = [chosen for size in range(1, n + 1) for chosen in combinations(range(n), size)]
    want = [max(min(1.0, len(s) * min(p_values[i] for i in s)) for s in sets if one in s) for one in range(n)]
    assert holm(p_values) == pytest.approx(want)


def test_it_is_what_statsmodels_computes():
    # statsmodels 0.15.0: multipletests(…, method="holm")[1]
    assert holm([0.01, 0.04, 0.03, 0.005, 0.2, 0.9]) == pytest.approx([0.05, 0.12, 0.12, 0.03, 0.4, 0.9])
    assert holm([]) == []


def test_the_verdict_counts_what_is_left():
    rows = [{"difference": 0.5, "p": 0.001}, {"difference": -0.5, "p": 0.002}, {"difference": 0.2, "p": 0.04}]
    rows.append({"difference": 0.1, "p": 0.03})
    assert [row["p_holm"] for row in adjusted(rows)] == pytest.approx([0.004, 0.006, 0.06, 0.06])
    assert verdict(adjusted(rows)) == (
        "After Holm's correction, 1 of 4 tasks are better and 1 worse (p < 0.05)."
    )
