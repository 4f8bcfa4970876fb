"""First updates against last: counts, p, and what is said of them."""

from math import comb

import pytest

from bridge.demo.quick.gain import Count, Gain, gain
from bridge.demo.quick.run import table


def upper_tail(last, first):
    """P(at least so many of all successes fall to the last), by counting: hypergeometric, in integers."""
    successes, episodes = last.successes + first.successes, last.episodes + first.episodes
    ways = sum(
        comb(last.episodes, k) * comb(first.episodes, successes - k)
        for k in range(last.successes, min(last.episodes, successes) + 1)
    )
    return ways / comb(episodes, successes)


@pytest.mark.parametrize(
    ("last", "first"),
    [
        ((100, 192), (40, 192)),
        ((50, 192), (40, 192)),
        ((30, 180), (60, 192)),
        ((3, 3), (0, 3)),
        ((0, 5), (0, 5)),
    ],
)
def test_p_is_the_share_of_the_divisions_that_favour_the_last_as_much(last, first):
    found = Gain(Count(*first), Count(*last))
    assert found.p_value == pytest.approx(upper_tail(found.last, found.first), rel=1e-9)


def rows(*rates, episodes=64):
    return [
        {"step": i, "train/success_rate": rate, "train/episodes": float(episodes), "train/update_s": 1.0}
        for i, rate in enumerate(rates, 1)
    ]


def test_the_first_three_updates_are_compared_with_the_last_three_and_those_between_are_left_out():
    found = gain(rows(0.25, 0.125, 0.5, 1.0, 0.0, 0.5, 0.75, 0.625))
    assert (found.first, found.last) == (Count(16 + 8 + 32, 192), Count(32 + 48 + 40, 192))


def test_rows_of_evaluations_are_no_updates():
    evaluated = [{"step": 8, "eval/pc_success": 50.0, "eval/n_episodes": 10.0}]
    assert gain(rows(0, 0, 0, 1, 1, 1) + evaluated).last == Count(192, 192)


def test_a_run_too_short_for_two_ends_is_refused():
    with pytest.raises(ValueError, match="6 updates make two ends to compare; the run has 5"):
        gain(rows(*[0.5] * 5))


@pytest.mark.parametrize(("p", "words"), [(0.049, "more often than by chance"), (0.05, "than chance allows")])
def test_the_table_says_what_was_found(p, words):
    ends = {"success": 0.25, "n": 192, "ci95": [0.19, 0.32]}
    summary = {"first": ends, "last": ends | {"success": 0.5}, "stretch": 3, "updates": 10, "gain": 0.25}
    said = table(summary | {"p_value": p, "wall_seconds": 170.0, "cpu_seconds": 301.2})
    assert "1 – 3       25.0%   19.0% – 32.0%   (n = 192)" in said
    assert "8 – 10      50.0%" in said
    assert "+25.0 points" in said
    assert words in said
    assert f"p = {p}" in said
    assert "170 s, 301 s of CPU" in said
