"""How often a process is started again, and after how long."""

import pytest

from bridge.launch.restarts import LONGEST_WAIT_S, Restarts


def test_the_wait_doubles_and_the_limit_is_that_of_a_window():
    restarts = Restarts(limit=3, window_s=100, backoff_s=5)
    assert [restarts.after_end(now) for now in (0, 10, 20)] == [5, 10, 20]
    assert restarts.after_end(30) is None
    # The end at 0 is forgotten, those at 10 and 20 are not; then all are.
    assert restarts.after_end(101) == 20
    assert restarts.after_end(400) == 5
    assert restarts.count == 5


@pytest.mark.parametrize(("limit", "wait"), [(0, None), (1, 0.0)])
def test_limits_of_nothing_and_of_one(limit, wait):
    assert Restarts(limit, 10, 0).after_end(0) == wait


def test_no_wait_is_longer_than_five_minutes():
    restarts = Restarts(20, 1e6, 5)
    assert max(restarts.after_end(now) for now in range(20)) == LONGEST_WAIT_S
