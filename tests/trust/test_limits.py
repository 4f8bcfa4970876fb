"""One host's share of a server, on a clock that is made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.trust.limits import Limits


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_calls_are_counted_by_host_and_given_back():
    limits = Limits(2, 10, 10)
    with limits.call("a") as first, limits.call("a") as second, limits.call("a") as third:
        assert (first, second, third) == (True, True, False)
        with limits.call("b") as other:
            assert other
    with limits.call("a") as first, limits.call("a") as second:
        assert first
        assert second


def test_a_call_is_given_back_when_it_fails():
    limits = Limits(1, 10, 10)
    with pytest.raises(RuntimeError), limits.call("a"):
        raise RuntimeError
    with limits.call("a") as room:
        assert room


@given(
    st.lists(st.tuples(st.integers(0, 3_000), st.floats(0, 2)), min_size=1, max_size=60),
    st.sampled_from([5.0, 50.0]),
    st.sampled_from([100.0, 1000.0]),
)
def test_no_second_lets_more_through_than_two_seconds_worth_and_a_message(sent, messages_per_s, bytes_per_s):
    """Counted anew: what a host that obeys the pauses has handed on within any second."""
    clock = Clock()
    limits = Limits(1, messages_per_s, bytes_per_s, clock)
    passed = []
    for size, idle in sent:
        clock.now += idle
        clock.now += limits.pause("a", size)
        passed.append((clock.now, size))
    for start, _ in passed:
        within = [size for at, size in passed if start <= at < start + 1]
        assert len(within) - 1 <= 2 * messages_per_s
        assert sum(within) - max(within) <= 2 * bytes_per_s


def test_a_host_that_keeps_to_its_rate_never_waits_and_another_pays_nothing_for_one_that_does_not():
    clock = Clock()
    limits = Limits(1, 10, 1000, clock)
    for _ in range(100):
        assert limits.pause("a", 100) == 0
        clock.now += 0.1
    assert limits.pause("b", 10_000) == pytest.approx(9)
    assert limits.pause("b", 0) == pytest.approx(9.1)
    assert limits.pause("a", 100) == 0


def test_what_is_known_of_hosts_is_bounded():
    limits = Limits(1, 10, 10)
    for number in range(5000):
        limits.pause(str(number), 1)
    assert len(limits._hosts) <= 1025
