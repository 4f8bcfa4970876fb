"""Success rates of a run, and how sure they are."""

import numpy as np
import pytest

from bridge.watch.history import History
from bridge.watch.success import POOLED, evaluations, exploring, tasks
from pirl_jax.training.interval import wilson


def history_of(wins, episodes=8):
    history = History()
    history.add(
        {"step": i + 1, "train/success_rate": w / episodes, "train/episodes": episodes}
        for i, w in enumerate(wins)
    )
    return history


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("first", [0, 1, 3])
def test_the_exploring_rate_is_of_all_episodes_of_the_last_points(width, first):
    wins = np.random.default_rng(0).integers(0, 9, 23)
    found = exploring(history_of(wins), width, first)
    count = -(-len(wins) // width)
    assert len(found["rate"]) == count - first
    for index in range(first, count):
        rows = wins[max(0, index + 1 - POOLED) * width : (index + 1) * width]
        low, high = wilson(int(rows.sum()), 8 * len(rows))
        got = [found[name][index - first] for name in ("rate", "low", "high")]
        assert got == pytest.approx([rows.sum() / (8 * len(rows)), low, high], rel=1e-4)


def test_updates_without_episodes_have_no_rate():
    history = History()
    history.add([{"step": 1, "train/loss": 1.0}])
    assert exploring(history, 1) == {"rate": [None], "low": [None], "high": [None]}
    assert exploring(History(), 1) == {"rate": [], "low": [], "high": []}


def test_an_evaluation_stands_after_as_many_episodes_as_its_policy_has_learned_from():
    def row(step, **values):
        return {"step": step, **{f"eval/{name}": value for name, value in values.items()}}

    rows = [
        row(0, n_episodes=50, pc_success=40.0, interval_low=28.0, interval_high=54.0),
        row(2, n_episodes=0, given_up=50),
        row(3, n_episodes=50, pc_success=60.0, interval_low=46.0, interval_high=72.0),
    ]
    found = evaluations(rows, history_of([1, 2, 3, 4]))
    assert [one["episodes"] for one in found] == [0, 24]
    assert found[1] == {"step": 3, "episodes": 24, "rate": 0.6, "low": 0.46, "high": 0.72, "n": 50}


def test_each_task_has_its_newest_rates_in_the_order_of_their_numbers():
    history = History()
    for step in range(1, 21):
        row = {"train/success_rate/goal_10": step / 100}
        row |= {"train/success_rate/goal_9": 0.5, "train/recent_success_rate/goal_9": 0.75}
        history.add([{"step": step, **row}])
    found = tasks(history, [{"step": 20, "eval/pc_success/goal_10": 25.0}])
    assert found == [
        {"name": "goal_9", "exploring": 0.75, "evaluated": None},
        {"name": "goal_10", "exploring": pytest.approx(0.155), "evaluated": 0.25},
    ]
