"""Finished tasks are kept and never repeated, and nothing unfinished, damaged or foreign is taken for one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from libero_episodes import identity, results, settings

from bridge.evaluate import process, progress, run
from bridge.evaluate.progress import Progress
from bridge.evaluate.run import TasksFailedError, evaluate
from bridge.evaluate.settings import Group

HERE = Path(__file__).parent
GROUPS = (Group("libero_goal", (0, 1)), Group("libero_goal", (2,)), Group("libero_10", (0,)))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(process, "_MODULE", "stand_in_lerobot_eval")
    monkeypatch.setattr(run, "_POLL_SECONDS", 0.01)
    monkeypatch.setenv("PYTHONPATH", str(HERE))

    def behave(how):
        monkeypatch.setenv("STAND_IN", how)

    return behave


def evaluate_groups(output_dir, groups=GROUPS, changes=None, **values):
    of = settings(**values)
    return evaluate(of, identity(of, **(changes or {})), groups, output_dir, processes=2)


def started(output_dir):
    """When each group's process was started, by folder."""
    return {log.parent.name: log.stat().st_mtime_ns for log in output_dir.glob("tasks/*/lerobot-eval.log")}


def test_every_task_is_evaluated_in_the_order_asked_for(tmp_path):
    results = evaluate_groups(tmp_path)
    assert [result.group for result in results] == list(GROUPS)
    got = [(e.task_id, e.episode, e.init_state, e.seed, e.success) for e in results[0].episodes]
    assert got == [(task, i, i, 1000 + i, i % 2 == 0) for task in (0, 1) for i in range(4)]
    assert "--env.task_ids=[0, 1]" in results[0].command
    assert results[0].seconds >= 0


def test_finished_tasks_are_not_repeated(tmp_path, stand_in):
    first = evaluate_groups(tmp_path)
    before = started(tmp_path)
    stand_in("fail")  # nothing may be started now
    assert evaluate_groups(tmp_path) == first
    assert started(tmp_path) == before


def test_more_tasks_can_be_added_to_a_folder(tmp_path):
    evaluate_groups(tmp_path, GROUPS[:1])
    before = started(tmp_path)
    assert len(evaluate_groups(tmp_path)) == 3
    assert before.items() < started(tmp_path).items()


def spoil(name, change):
    """Return what replaces the text of one of a group's files; None takes the file away."""

    def damage(folder):
        text = change((folder / name).read_text())
        (folder / name).unlink() if text is None else (folder / name).write_text(text)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (spoil("eval_info.json", lambda text: text[:20]), "cannot be read"),
        (spoil("eval_info.json", lambda text: "[]"), "no JSON object"),
        (spoil("eval_info.json", lambda text: '{"per_task": [{}]}'), "no result of lerobot-eval"),
        (
            spoil("eval_info.json", lambda text: text.replace("libero_goal", "libero_10")),
            "not libero_goal task 2",
        ),
        (spoil("eval_info.json", lambda text: text.replace("true", "1")), "4 outcomes"),
        # A flipped outcome leaves a file that can be read.
        (spoil("eval_info.json", lambda text: text.replace("true", "false", 1)), "has changed"),
        (spoil("eval_info.json", lambda text: None), "cannot be read"),
        (spoil("result.json", lambda text: "{"), "cannot be read"),
        (spoil("result.json", lambda text: '{"fingerprint": "another"}'), "other settings"),
        (spoil("result.json", lambda text: None), None),
    ],
)
def test_a_damaged_result_is_made_again(tmp_path, damage, message, caplog):
    first = evaluate_groups(tmp_path)
    before = started(tmp_path)
    damage(tmp_path / "tasks" / "libero_goal_2")
    again = evaluate_groups(tmp_path)
    assert [result.episodes for result in again] == [result.episodes for result in first]
    assert {name for name, time in started(tmp_path).items() if before[name] != time} == {"libero_goal_2"}
    if message:
        assert "libero_goal task 2 will be evaluated again" in caplog.text
        assert message in caplog.text


@pytest.mark.parametrize(
    ("changes", "values", "message"),
    [
        ({}, {"seed": 5}, "seed was 1000, now 5"),
        ({}, {"n_episodes": 3}, "n_episodes was 4, now 3"),
        ({}, {"name": "b"}, "checkpoint was 'sha-a', now 'sha-b'"),
        ({"versions": {"lerobot": "0.7"}}, {}, "versions was"),
        ({"libero": {"bddl_files": "another"}}, {}, "libero was"),
    ],
)
def test_results_of_other_settings_are_not_mixed(tmp_path, changes, values, message):
    evaluate_groups(tmp_path, GROUPS[:1])
    with pytest.raises(ValueError, match=message):
        evaluate_groups(tmp_path, GROUPS[:1], changes, **values)


def test_results_of_unknown_settings_are_not_mixed(tmp_path):
    evaluate_groups(tmp_path, GROUPS[:1])
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match="Use another --output_dir"):
        evaluate_groups(tmp_path)


def test_a_failure_shows_the_end_of_the_log_and_keeps_what_is_finished(tmp_path, stand_in):
    evaluate_groups(tmp_path, GROUPS[:1])
    stand_in("fail")
    with pytest.raises(RuntimeError, match="libero_goal task 2") as error:
        evaluate_groups(tmp_path, GROUPS[:2])
    assert "the simulator is on fire" in str(error.value)
    stand_in("")
    before = started(tmp_path)["libero_goal_0-1"]
    assert len(evaluate_groups(tmp_path)) == 3
    assert started(tmp_path)["libero_goal_0-1"] == before


def test_a_failing_task_does_not_stop_the_others(tmp_path, stand_in, capsys):
    stand_in("fail 2")
    with pytest.raises(TasksFailedError, match="1 groups of tasks failed") as error:
        evaluate_groups(tmp_path)
    assert [result.group for result in error.value.finished] == [GROUPS[0], GROUPS[2]]
    ((group, why),) = error.value.failed.items()
    assert group == "libero_goal task 2"
    assert why.startswith("lerobot-eval failed on libero_goal task 2 (exit status 1)")
    assert "FAILED: lerobot-eval failed on libero_goal task 2" in capsys.readouterr().out
    stand_in("")
    before = started(tmp_path)
    assert len(evaluate_groups(tmp_path)) == 3
    again = started(tmp_path)
    assert {name for name in again if again[name] != before[name]} == {"libero_goal_2"}


def test_what_fails_from_the_start_is_given_up(tmp_path, stand_in):
    stand_in("fail")
    groups = [Group("libero_10", (task,)) for task in range(8)]
    with pytest.raises(TasksFailedError, match=r"the other \d were not tried") as error:
        evaluate_groups(tmp_path, groups)
    assert error.value.finished == []


def test_a_folder_without_a_result_belongs_to_nobody(tmp_path, stand_in):
    """As a run leaves it that was killed, or failed, before its first result."""
    stand_in("fail")
    with pytest.raises(TasksFailedError):
        evaluate_groups(tmp_path, GROUPS[:1])
    stand_in("")
    assert len(evaluate_groups(tmp_path, GROUPS[:1], {"versions": {"lerobot": "0.7"}})) == 1
    with pytest.raises(ValueError, match="versions was"):
        evaluate_groups(tmp_path, GROUPS[:1])


def test_a_result_with_too_few_episodes_is_a_failure(tmp_path, stand_in):
    stand_in("lie")
    with pytest.raises(RuntimeError, match="does not hold 4 outcomes"):
        evaluate_groups(tmp_path, GROUPS[:1])
    assert not list(tmp_path.glob("tasks/*/result.json"))


def test_the_log_has_no_progress_bars(tmp_path):
    evaluate_groups(tmp_path, GROUPS[:1])
    log = (tmp_path / "tasks" / "libero_goal_0-1" / "lerobot-eval.log").read_text()
    assert log == "INFO Making policy.\n"


def test_progress_counts_the_episodes_of_all_tasks_of_a_process(tmp_path, stand_in):
    child = process.LerobotEval(settings().command(GROUPS[0], tmp_path), tmp_path / "log")
    while child.poll() is None:
        time.sleep(0.01)
    assert (child.rollouts, round(child.won, 3)) == (8, 4)  # 2 tasks of 4 episodes


def test_the_line_of_progress_says_how_many_episodes_and_how_many_successes(capsys, monkeypatch):
    of = settings(n_episodes=10, batch_size=2)
    shown = Progress(GROUPS, GROUPS[:2], of)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    shown.show({GROUPS[0]: (3, 1.5)})
    shown.finished(GROUPS[0], results(of, {"libero_goal": [[True] * 10, [False] * 10]})[0].episodes, 1.0)
    shown.show({GROUPS[1]: (1, 0.0)})
    shown.failed(GROUPS[1], "fire")
    shown.show({})
    lines = [line for line in capsys.readouterr().out.splitlines() if " at work" in line]
    assert [line.partition("at work, ")[2].partition(" successful")[0] for line in lines] == [
        "6 of 30 episodes, 3",
        "22 of 30 episodes, 10",
        "20 of 20 episodes, 10",
    ]


DRIVER = f"""
import sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]
from pathlib import Path
from test_run import *
process._MODULE = "stand_in_lerobot_eval"
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
of = settings()
evaluate(of, identity(of), GROUPS, Path(sys.argv[1]), 2)
"""


@pytest.fixture
def driver(tmp_path):
    """A process that evaluates with children that never end."""
    running = subprocess.Popen(
        [sys.executable, "-c", DRIVER, tmp_path],
        env=os.environ | {"STAND_IN": "wait"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(children(tmp_path)) < 2:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield running
    running.kill()
    running.wait()


def children(output_dir):
    """Return the ids of the stand-ins that write to a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode().split("\0")
        except OSError:
            continue
        if "stand_in_lerobot_eval" in words and any(str(output_dir) in word for word in words):
            found.append(int(entry.parent.name))
    return found


def test_ctrl_c_ends_the_children(driver, tmp_path):
    driver.send_signal(signal.SIGINT)
    assert driver.wait(60) != 0
    assert children(tmp_path) == []


def test_children_do_not_outlive_a_killed_parent(driver, tmp_path):
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 60
    while children(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_evaluations_do_not_share_a_folder(driver, tmp_path):
    with pytest.raises(BlockingIOError, match="another pirl-eval"):
        evaluate_groups(tmp_path)


def test_json_with_nan_is_refused_instead_of_written(tmp_path):
    from pirl_jax.files import write_json

    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
