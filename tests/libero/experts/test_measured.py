"""The table of an expert's successes: kept task by task, told apart by settings, the same each time."""

import json

import pytest

from bridge.libero.experts.choice import Choice
from bridge.libero.experts.measured import RESULTS, TABLE, Measured, measure
from bridge.libero.suites import TaskId
from bridge.processes import pool

SETTINGS = {"noise": 0.05, "episodes": 3}


def episodes(*steps):
    """Of a negative number of steps: failed."""
    return [
        {"init_state": k, "seed": k, "success": n > 0, "steps": abs(n), "cpu_seconds": 2.0}
        for k, n in enumerate(steps)
    ]


def test_a_table_says_how_often_and_how_fast(tmp_path):
    measured = Measured(tmp_path, SETTINGS)
    measured.add(TaskId("libero_object", 10), "the tenth", episodes(-280, -280, -280))
    measured.add(TaskId("libero_object", 2), "the second", episodes(100, -280, 130))
    rows = (tmp_path / TABLE).read_text().splitlines()
    assert rows[2:] == [
        "| libero_object_2 | the second | 2 | 115 | 2.0 |",
        "| libero_object_10 | the tenth | 0 |  | 2.0 |",
        "| all | | 2 of 6 | | |",
    ]


def test_what_was_measured_is_not_measured_again(tmp_path):
    Measured(tmp_path, SETTINGS).add(TaskId("libero_object", 2), "the second", episodes(100, 90, 80))
    again = Measured(tmp_path, SETTINGS)
    assert TaskId("libero_object", 2) in again
    assert TaskId("libero_object", 3) not in again
    again.add(TaskId("libero_object", 3), "the third", episodes(70, 60, 50))
    assert list(json.loads((tmp_path / RESULTS).read_text())["tasks"]) == [
        "libero_object_2",
        "libero_object_3",
    ]


def test_other_settings_are_not_mixed_in(tmp_path):
    Measured(tmp_path, SETTINGS).add(TaskId("libero_object", 2), "the second", episodes(100, 90, 80))
    with pytest.raises(ValueError, match="Give another --output_dir"):
        Measured(tmp_path, SETTINGS | {"noise": 0.1})
    (tmp_path / RESULTS).write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        Measured(tmp_path, SETTINGS)


@pytest.mark.slow
def test_the_same_episodes_come_out_the_same():
    asked = (TaskId("libero_object", 1), Choice(), range(20, 22), 3, 5, 2)
    with pool(1) as workers:
        first, again = (list(measure(workers, *asked)) for _ in range(2))
    without_clock = [[e | {"cpu_seconds": 0} for e in episodes] for episodes in (first, again)]
    assert without_clock[0] == without_clock[1]
    assert [(e["init_state"], e["seed"]) for e in first] == [(20, 5), (21, 6), (20, 7)]
    assert all(e["success"] for e in first)
