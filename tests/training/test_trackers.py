"""TensorBoard's event files, read back by its own reader, and W&B."""

import copy
import logging
import math
import sys
import types

import pytest
from events import series

from pirl_jax.training.metrics import MetricsWriter
from pirl_jax.training.trackers import EVENTS, TensorBoard, trackers, wandb_sinks

OFF = types.SimpleNamespace(wandb=types.SimpleNamespace(enable=False), to_dict=dict)


def run(folder, done, rows):
    with MetricsWriter(folder, done, trackers(OFF, folder, done)) as writer:
        for step, row in rows:
            writer.write(step, row)


def test_every_run_tells_tensorboard_under_the_names_of_its_metrics(tmp_path):
    run(tmp_path, 0, [(0, {"eval/pc_success": 50.0}), (1, {"train/lr": 0.5}), (2, {"train/lr": 0.25})])
    assert series(tmp_path / EVENTS) == {"eval/pc_success": [(0, 50.0)], "train/lr": [(1, 0.5), (2, 0.25)]}


def test_a_row_is_there_at_once_and_before_the_first_there_is_no_file(tmp_path):
    told = TensorBoard(tmp_path / EVENTS, 0)
    assert not (tmp_path / EVENTS).exists()  # the folder of a run that made nothing goes
    told(1, {"train/lr": 0.5, "train/approx_kl": math.nan})
    found = series(tmp_path / EVENTS)
    assert found["train/lr"] == [(1, 0.5)]
    assert math.isnan(found["train/approx_kl"][0][1])


def test_a_run_that_goes_on_is_one_series(tmp_path, monkeypatch):
    """Killed after update 4, within a record, and resumed from update 2 on a clock that is late."""
    run(tmp_path, 0, [(step, {"train/lr": step / 8}) for step in range(1, 5)])
    (first,) = (tmp_path / EVENTS).iterdir()
    with first.open("ab") as file:
        file.write(b"\x40\0\0")
    monkeypatch.setattr("pirl_jax.training.trackers.time", types.SimpleNamespace(time=lambda: 1e9))
    run(tmp_path, 2, [(step, {"train/lr": step * 1.0}) for step in range(3, 6)])
    assert series(tmp_path / EVENTS) == {"train/lr": [(1, 0.125), (2, 0.25), (3, 3.0), (4, 4.0), (5, 5.0)]}


def test_a_disk_that_takes_nothing_is_said_once_and_stops_no_run(tmp_path, caplog):
    (tmp_path / EVENTS).touch()
    with caplog.at_level(logging.WARNING):
        run(tmp_path, 0, [(1, {"train/lr": 0.5}), (2, {"train/lr": 0.5})])
    (line,) = caplog.messages
    assert line.startswith(f"TensorBoard is told no more: {tmp_path / EVENTS} cannot be written to")


WANDB = types.SimpleNamespace(enable=True, project="p", entity=None, notes=None, run_id="r1", mode="offline")


def test_wandb_gets_the_runs_settings_and_every_row(tmp_path, monkeypatch):
    started, logged = [], []
    run = types.SimpleNamespace(id="r2", log=lambda row, step: logged.append((step, row)))
    wandb = types.SimpleNamespace(init=lambda **settings: started.append(settings) or run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    section = copy.copy(WANDB)
    with MetricsWriter(
        tmp_path, sinks=wandb_sinks(section, {"job_name": "a", "seed": 1}, tmp_path)
    ) as writer:
        writer.write(7, {"x": 1})
    (settings,) = started
    assert section.run_id == "r2"  # what a checkpoint's config says, so that a resumed run goes on with it
    assert settings["config"] == {"job_name": "a", "seed": 1}
    assert settings["name"] == "a"
    assert (settings["project"], settings["id"], settings["mode"]) == ("p", "r1", "offline")
    assert logged == [(7, {"x": 1.0})]


def test_wandb_is_not_touched_unless_enabled(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert wandb_sinks(types.SimpleNamespace(enable=False), {}, tmp_path) == ()
    with pytest.raises(ValueError, match=r"Install pirl-jax\[wandb\]"):
        wandb_sinks(WANDB, {}, tmp_path)
