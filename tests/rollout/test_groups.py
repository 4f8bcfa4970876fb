"""Groups of episodes from one initial state: which teach something."""

import pytest

from pirl_jax.rollout.groups import Groups


def test_groups_that_all_succeed_or_all_fail_are_dropped():
    for outcome in (0.0, 1.0):
        assert not Groups(3, 1e-3).teaches([outcome] * 3)
    assert Groups(3, 1e-3).teaches([0.0, 1.0, 1.0])


@pytest.mark.parametrize("outcome", [0.3, -7.0, 40.0])
def test_equal_returns_teach_nothing_whatever_they_are(outcome):
    assert not Groups(8, 1e-3).teaches([outcome] * 8)


def test_returns_on_any_scale_teach_something_if_they_differ():
    assert Groups(2, 1e-3).teaches([480.0, 500.0])


def test_a_range_of_mean_returns_may_be_asked_for_besides():
    for outcomes, kept in (((0.0, 1.0), True), ((0.0, 0.1), False), ((0.9, 1.0), False)):
        assert Groups(2, 1e-3, (0.1, 0.9)).teaches(outcomes) is kept
