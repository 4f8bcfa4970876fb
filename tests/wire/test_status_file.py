"""How a run stands, written where anyone can read it."""

import json
import logging
import threading

from bridge.wire.protocol import ActorStatus, Status
from bridge.wire.reminder import Reminder
from bridge.wire.status_file import StatusFile, read_standing

STATUS = Status(7, 3, 10, 4, 2, 64, 12, 10, [ActorStatus("0", 250, 9, None)], 50, 9)


def test_what_is_read_is_what_was_written(tmp_path):
    StatusFile(tmp_path / "status.json").write(STATUS)
    standing = read_standing(tmp_path / "status.json")
    assert standing.status == STATUS
    assert standing.time >= standing.began > 1e9
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_it_is_written_every_two_seconds_at_most(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("bridge.wire.status_file.time.monotonic", lambda: now[0])
    file, path = StatusFile(tmp_path / "status.json"), tmp_path / "status.json"
    file.write(STATUS)
    path.unlink()
    now[0] += 1
    file.write(STATUS)
    assert not path.exists()
    now[0] += 1.1
    file.write(STATUS)
    assert path.exists()


def test_a_file_that_cannot_be_written_is_said_once_and_costs_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("bridge.wire.status_file._EVERY_S", 0.0)
    file = StatusFile(tmp_path / "gone" / "status.json")
    with caplog.at_level(logging.WARNING):
        file.write(STATUS)
        file.write(STATUS)
    assert caplog.text.count("cannot be written") == 1


def test_the_reminder_shows_at_each_look_how_the_run_stands(tmp_path):
    shown = []
    reminder = Reminder(lambda: STATUS, threading.Event(), shown.append)
    for now in (1e6, 1e6 + 1, 1e6 + 2):
        reminder.look(now)
    assert shown == [STATUS] * 3


def test_what_is_not_a_status_is_none(tmp_path):
    path = tmp_path / "status.json"
    assert read_standing(path) is None
    StatusFile(path).write(STATUS)
    said = json.loads(path.read_text())
    for change in ({"update": "3"}, {"time": None}, {"actors": [{}]}, {"more": 1}):
        path.write_text(json.dumps(said | change))
        assert read_standing(path) is None
