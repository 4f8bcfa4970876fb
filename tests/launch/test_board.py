"""What a person sees of a run."""

import io
import json
import signal

import pytest
from house import House
from rich.console import Console

from bridge.launch import board
from bridge.launch.board import Lines, Screen, run_line
from bridge.launch.pace import pace_of
from bridge.wire.protocol import ActorStatus, Status
from bridge.wire.reminder import status_in_words
from pirl_jax.console.duration import duration


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path, {"0": ["run"], "1": ["run"]}, backoff_s=100.0)
    house.until(lambda: all(actor.registered for actor in house.supervisor.actors))
    yield house
    for process in house.processes.values():
        process.kill()


def metrics(*successes):
    return [
        {"step": step, "time": 30.0 * step, "train/episodes": 16, "train/success_rate": success}
        for step, success in enumerate(successes, 1)
    ]


def test_the_pace_is_of_the_last_updates_and_a_pause_does_not_count():
    rows = metrics(*[0.1] * 20, 0.5)
    for row in rows[15:]:
        row["time"] += 1000  # a restart
    pace = pace_of(rows)
    assert (pace.update, pace.success, pace.update_s, pace.episodes_per_minute) == (21, 0.5, 30, 32)
    assert pace_of([]).update == 0
    assert pace_of(rows[:1]).episodes_per_minute is None


def test_the_runs_line_says_what_is_done_and_what_is_waited_for(house):
    launch = house.supervisor
    rows = metrics(0.25, 0.25, 0.25, 0.5)
    (house.output_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    launch.status = Status(1, 2, 10, 3, 37, 64, 49, 12, [ActorStatus("0", 0, 0, 3)])
    assert run_line(launch) == (
        "update 2 of 10, 32 episodes/min, success 50%, waits: 37 of 64 episodes are there, 1 actor, "
        "12 being played, 4 min left"
    )
    launch.status = Status(1, 2, 10, 3, 64, 64, 64, 0, [])
    assert "learns from its 64 episodes" in run_line(launch)
    for arrived in (37, 64):  # the learner's own log says the same
        launch.status = Status(1, 2, 10, 3, arrived, 64, 64, 5, [])
        assert status_in_words(launch.status).removeprefix("update 3 ") in run_line(launch)
    launch.status = None
    assert "update 4 of 10" in run_line(launch)
    assert "waiting for the learner to listen" in run_line(launch)


def test_the_newest_evaluation_is_on_the_board_and_is_no_update(house):
    launch = house.supervisor
    evaluations = [
        {"step": 0, "time": 15.0, "eval/n_episodes": 50.0, "eval/pc_success": 10.0},
        {"step": 2, "time": 65.0, "eval/n_episodes": 50.0, "eval/pc_success": 44.0},
        {"step": 4, "time": 130.0, "eval/n_episodes": 0.0, "eval/given_up": 50.0},  # nothing could be played
    ]
    for row in evaluations[:2]:
        row |= {"eval/interval_low": row["eval/pc_success"] - 9, "eval/interval_high": 57.6}
    updates = metrics(0.25, 0.25, 0.25, 0.5)
    rows = [evaluations[0], *updates[:2], evaluations[1], *updates[2:], evaluations[2]]
    (house.output_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    launch.status = Status(1, 4, 10, 3, 37, 64, 49, 12, [ActorStatus("0", 0, 0, 3)])
    line = run_line(launch)
    assert "32 episodes/min, success 50%, evaluated 44% (35–58) at update 2, waits: 37 of 64" in line
    assert line.endswith("3 min left")


def test_no_time_left_is_said_before_it_can_be_known(house):
    launch = house.supervisor
    launch.status = Status(1, 2, 10, 3, 37, 64, 49, 12, [])
    for n, said in ((2, False), (3, False), (4, True)):
        rows = metrics(*[0.5] * n)
        (house.output_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert run_line(launch).endswith(" left") == said


def test_without_a_terminal_there_is_a_line_after_each_update(house, capsys):
    rows, shown = metrics(0.25, 0.5, 0.75), Lines()
    for n in (1, 1, 2, 3):  # the first was there before this launch
        (house.output_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:n]))
        shown.show(house.supervisor)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("success ")[2].partition(",")[0] for line in lines] == ["50%", "75%"]


def test_the_screen_has_a_row_an_actor_and_what_happened_above_it(house):
    text = io.StringIO()
    screen = Screen(Console(file=text, force_terminal=True, width=120, no_color=True))
    launch = house.supervisor
    house.signal("1", signal.SIGKILL)
    house.until(lambda: launch.actors[1].slot.process is None)
    launch.status = Status(
        1, 0, 10, 3, 0, 4, 0, 0, [ActorStatus("0", 100, 2, 1), ActorStatus("x[b]", 4100, 5, 3)]
    )
    with screen:
        screen.say("actor 1 [red]is away")
        screen.show(launch)
    lines = text.getvalue().splitlines()
    rows = {
        line.split()[0]: line.split()
        for line in lines
        if line.split() and line.split()[0] in ("0", "1", "x[b]")
    }
    assert any("actor 1 [red]is away" in line for line in lines)
    assert rows["0"][1:3] == ["plays", "2"]
    assert rows["0"][-2:] == ["2", "0"]
    assert rows["1"][1:3] == ["starts", "in"]
    assert rows["1"][-2:] == ["2", "1"]
    assert rows["x[b]"][1:] == ["elsewhere", "0", "4", "s", "ago", "5", "–"]


def test_without_a_terminal_there_is_a_line_a_minute(house, capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(board.time, "monotonic", lambda: now[0])
    with Lines() as lines:
        for now[0] in (130.0, 161.0, 200.0, 222.0):
            lines.show(house.supervisor)
        lines.say("something")
    said = capsys.readouterr().out.splitlines()
    assert [line[9:20] for line in said] == ["update 0 of", "update 0 of", "something"]
    assert isinstance(board.board(), Lines)  # pytest's standard output is no terminal


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (720, "12 min"), (11_100, "3 h 05 min")])
def test_durations_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words
