"""Tasks that are always or never solved are played on and not learned from."""

import dataclasses
import threading

import by_recipe
import pytest
from by_recipe import make_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_run import FROZEN, RECIPE, critic, episode, fresh_state, toy_policy

from pirl_jax.rollout.tasks import RecentSuccess


@settings(max_examples=100, deadline=None)
@given(
    window=st.integers(1, 5),
    played=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.booleans()), max_size=40),
    low=st.floats(0, 0.5),
    high=st.floats(0.5, 1),
)
def test_the_verdict_is_of_the_episodes_before(window, played, low, high):
    recent = RecentSuccess(window, (low, high))
    history = {"a": [], "b": []}
    for task, success in played:
        before = history[task][-window:]
        inside = low <= sum(before) / window <= high
        assert recent.add(task, success) == (len(before) < window or inside)
        history[task].append(success)
    rates = {task: sum(past[-window:]) / len(past[-window:]) for task, past in history.items() if past}
    assert recent.rates == pytest.approx(rates)


def test_a_task_comes_back_once_it_is_neither_always_nor_never_solved():
    recent = RecentSuccess(3, (0.1, 0.9))
    assert [recent.add("a", True) for _ in range(5)] == [True, True, True, False, False]
    assert not recent.add("a", False)  # itself judged by the successes before it
    assert [recent.add("a", True) for _ in range(4)] == [True, True, True, False]


def test_episodes_without_a_task_are_never_dropped():
    recent = RecentSuccess(2, (0.1, 0.9))
    assert all(recent.add("", True) for _ in range(5))
    assert recent.rates == {}


def test_the_loop_learns_from_the_mixed_task_alone_and_counts_the_rest(tmp_path):
    recipe = make_recipe(RECIPE, task_success_range=(0.1, 0.9), task_window=2)
    versions: list[int] = []
    sent: list[str] = []

    def receive(timeout):
        """``solved`` always succeeds, ``mixed`` every other time."""
        n = len(sent)
        task = ("solved", "mixed")[n % 2]
        success = task == "solved" or n % 4 == 1
        sent.append(task)
        item = episode(n, 2, terminated=success, version=versions[-1])
        return dataclasses.replace(item, task=task)

    updates = by_recipe.run(
        toy_policy(),
        critic,
        FROZEN,
        recipe,
        fresh_state(recipe),
        total_steps=3,
        receive=receive,
        publish=lambda version, params: versions.append(version),
        stop=threading.Event(),
    )
    rows = [update.metrics for update in updates]
    # Four episodes fill the windows; after them every other episode is dropped.
    assert [row["dropped/uniform_task"] for row in rows] == [0, 2, 3]
    assert [row["train/episodes"] for row in rows] == [3, 3, 3]
    assert "train/success_rate/solved" not in rows[2]
    assert rows[2]["train/recent_success_rate/solved"] == 1.0
    assert rows[2]["train/recent_success_rate/mixed"] == 0.5


def test_without_a_range_nothing_is_dropped_or_logged(tmp_path):
    versions: list[int] = []
    updates = by_recipe.run(
        toy_policy(),
        critic,
        FROZEN,
        RECIPE,
        fresh_state(RECIPE),
        total_steps=1,
        receive=lambda timeout: dataclasses.replace(
            episode(0, 2, terminated=True, version=versions[-1]), task="solved"
        ),
        publish=lambda version, params: versions.append(version),
        stop=threading.Event(),
    )
    metrics = next(updates).metrics
    assert metrics["dropped/uniform_task"] == 0
    assert not any("recent" in name for name in metrics)
