"""Checkpoints restore bit for bit, say what does not fit, and survive being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirl_jax.run_folder.layout import checkpoint_folder, read_about, read_step
from pirl_jax.run_folder.manifest import damage
from pirl_jax.run_folder.retention import Retention
from pirl_jax.training import checkpoint
from pirl_jax.trees import store


def state(value: float) -> dict:
    return {"w": np.full(3, value, np.float32)}


def no_export(folder: Path, state) -> None:
    (folder / "config.json").write_text("{}")


def test_writer_makes_lerobots_layout(tmp_path):
    with checkpoint.CheckpointWriter(tmp_path, 1000, Retention()) as writer:
        folder = writer.save(10, state(1.0), no_export)
        assert folder == tmp_path / "checkpoints" / "000010"
        writer.save(20, state(2.0), no_export)
    last = tmp_path / "checkpoints" / "last"
    assert os.readlink(last) == "000020"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000010", "000020", "last"]
    assert json.loads((folder / "training_state" / "training_step.json").read_text()) == {"step": 10}
    assert (folder / "pretrained_model" / "config.json").exists()
    assert read_step(last) == 20
    np.testing.assert_array_equal(checkpoint.restore(last, state(0.0))["w"], 2.0)


def test_a_run_killed_before_its_links_were_made_has_them_once_it_goes_on(tmp_path):
    """Also if it is stopped before its next checkpoint."""
    with checkpoint.CheckpointWriter(tmp_path, 1000, Retention()) as writer:
        writer.save(10, state(1.0), no_export, {"score": 0.5})
    links = [tmp_path / "checkpoints" / name for name in ("last", "best")]
    for link in links:
        link.unlink()
    checkpoint.CheckpointWriter(tmp_path, 1000, Retention()).close()
    assert [os.readlink(link) for link in links] == ["000010", "000010"]


def slowly(folder: Path, state) -> None:
    time.sleep(0.3)
    no_export(folder, state)


def test_what_is_found_of_a_checkpoint_later_is_in_it_and_moves_the_best(tmp_path):
    """Whether it is written already, or is being written."""
    with checkpoint.CheckpointWriter(tmp_path, 1000, Retention(keep_last=1)) as writer:
        writer.save(10, state(1.0), no_export, {"score": 0.9})
        writer.wait()
        writer.add(10, {"pc_success": 40.0})
        writer.save(20, state(2.0), slowly, {"score": 0.1})
        writer.add(20, {"pc_success": 30.0})
        writer.wait()
        best = tmp_path / "checkpoints" / "best"
        assert os.readlink(best) == "000010"
        writer.save(30, state(3.0), slowly)
        writer.add(30, {"pc_success": 40.0})
        writer.release()
    assert os.readlink(best) == "000030"
    assert read_about(best) == {"step": 30, "pc_success": 40.0}
    assert damage(best.resolve()) is None
    left = sorted(path.name for path in best.parent.iterdir() if not path.is_symlink())
    assert left == ["000030"]  # what was best is not any more, and goes


def test_what_is_found_of_an_update_that_was_not_saved_is_in_no_checkpoint(tmp_path):
    """Nor in one of its step that an earlier run has left here."""
    with checkpoint.CheckpointWriter(tmp_path, 1000, Retention()) as writer:
        writer.add(0, {"pc_success": 10.0})
        writer.release()  # nobody reads anything
        writer.save(10, state(1.0), no_export)
        writer.save(20, state(2.0), no_export)
    with checkpoint.CheckpointWriter(tmp_path, 1000, Retention(), saved=10) as writer:
        writer.add(10, {"pc_success": 20.0})  # that it goes on from
        writer.add(20, {"pc_success": 30.0})
    abouts = {step: read_about(checkpoint_folder(tmp_path, step, 1000)) for step in (10, 20)}
    assert abouts == {10: {"step": 10, "pc_success": 20.0}, 20: {"step": 20}}
    assert os.readlink(tmp_path / "checkpoints" / "best") == "000010"


def test_folder_names_are_padded_as_lerobot_pads_them():
    assert checkpoint_folder("o", 7, 1000).name == "000007"
    assert checkpoint_folder("o", 7, 12_345_678).name == "00000007"


def test_writer_snapshots_before_the_buffers_are_donated(tmp_path):
    state = {"w": jnp.arange(50_000.0)}
    want = np.arange(50_000.0, dtype=np.float32)
    seen = {}

    def slow_export(folder: Path, host_state) -> None:
        time.sleep(0.3)
        seen["w"] = host_state["w"].copy()

    step = jax.jit(lambda s: {"w": s["w"] * 0 - 1}, donate_argnums=0)
    with checkpoint.CheckpointWriter(tmp_path, 10, Retention()) as writer:
        writer.save(1, state, slow_export)
        jax.block_until_ready(step(state))
    np.testing.assert_array_equal(seen["w"], want)
    stored = store.load(tmp_path / "checkpoints" / "000001" / "training_state" / "orbax")
    np.testing.assert_array_equal(stored["w"], want)


def test_saving_a_step_again_replaces_it(tmp_path):
    like = {"w": np.zeros(3, np.float32)}
    with checkpoint.CheckpointWriter(tmp_path, 10, Retention()) as writer:
        writer.save(1, {"w": np.full(3, 1.0, np.float32)}, no_export)
        writer.save(1, {"w": np.full(3, 2.0, np.float32)}, no_export)
    restored = checkpoint.restore(tmp_path / "checkpoints" / "last", like)
    np.testing.assert_array_equal(restored["w"], 2.0)


def test_a_failed_checkpoint_is_said_at_once_and_tried_again_and_leaves_last_alone(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(checkpoint, "RETRY_S", 0)

    def failing(folder: Path, state) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    writer = checkpoint.CheckpointWriter(tmp_path, 10, Retention())
    writer.save(1, {"w": np.ones(2)}, no_export)
    assert not writer.to_be_tried_again
    writer.save(2, {"w": np.ones(2)}, failing)
    writer._thread.join()
    assert "000002 could not be written: disk full" in caplog.text
    assert writer.to_be_tried_again
    assert (tmp_path / "checkpoints" / "last").readlink() == Path("000001")
    writer.save(3, {"w": np.ones(2)}, no_export)
    writer.close()
    assert not writer.to_be_tried_again
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000001", "000003", "last"]
    writer.save(4, {"w": np.ones(2)}, failing)
    with pytest.raises(checkpoint.CheckpointError, match="disk full"):
        writer.close()


def test_the_state_of_the_end_is_saved_if_the_save_before_it_failed(tmp_path):
    """What a full disk held up at the save before may fit by the end."""

    def failing(folder: Path, state) -> None:
        raise OSError("disk full")

    with checkpoint.CheckpointWriter(tmp_path, 10, Retention()) as writer:
        writer.save(2, {"w": np.ones(2)}, failing)
        writer._thread.join()
        checkpoint.save_last(writer, 2, {"w": np.ones(2)}, no_export)
        assert writer.saved == 2
        checkpoint.save_last(writer, 2, {"w": np.zeros(2)}, no_export)  # it is saved already
    state = store.load(tmp_path / "checkpoints" / "last" / "training_state" / "orbax")
    np.testing.assert_array_equal(state["w"], 1.0)


def test_a_disk_is_not_filled_up_and_little_room_is_said_before(tmp_path, caplog, monkeypatch):
    """By the size of the checkpoint before."""
    free = [10**9]
    usage = checkpoint.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage._replace(free=free[0]))
    writer = checkpoint.CheckpointWriter(tmp_path, 10, Retention())
    state = {"w": np.ones(10**5)}
    writer.save(1, state, no_export)
    writer.wait()
    assert "make room" not in caplog.text
    free[0] = 10**6
    writer.save(2, state, no_export)
    writer.wait()
    assert "make room before the next" in caplog.text
    free[0] = 10**5
    writer.save(3, state, no_export)
    with pytest.raises(checkpoint.CheckpointError, match="and the disk has"):
        writer.wait()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000001", "000002", "last"]


def test_a_state_whose_memory_the_failed_update_has_used_is_not_saved_and_that_is_said(tmp_path, caplog):
    state = {"w": jnp.ones(3), "n": jnp.zeros(2)}
    state["w"].delete()
    with checkpoint.CheckpointWriter(tmp_path, 10, Retention()) as writer:
        checkpoint.save_last(writer, 3, state, no_export)
    assert "step 3 cannot be saved" in caplog.text
    assert not list((tmp_path / "checkpoints").glob("0*"))


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from pirl_jax.trees import store
from pirl_jax.training import checkpoint
from pirl_jax.run_folder.layout import checkpoint_folder, read_step
from pirl_jax.run_folder.retention import Retention

def export(folder, state):
    (folder / "config.json").write_text("{}")
    if state["n"] == 2:
        (folder / "model.safetensors").write_bytes(b"half")
        print("exporting", flush=True)
        time.sleep(60)

writer = checkpoint.CheckpointWriter(Path(sys.argv[1]), 10, Retention())
for n in (1, 2):
    writer.save(n, {"n": n}, export)
writer.close()
"""


def test_a_killed_process_leaves_last_at_the_previous_checkpoint(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"exporting\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    folder = tmp_path / "checkpoints"
    assert (folder / "000002.tmp").exists()
    assert os.readlink(folder / "last") == "000001"
    assert checkpoint.restore(folder / "last", {"n": 0}) == {"n": 1}

    checkpoint.CheckpointWriter(tmp_path, 10, Retention())
    assert sorted(p.name for p in folder.iterdir()) == ["000001", "last"]


def test_the_next_writer_restores_a_checkpoint_that_was_being_replaced(tmp_path):
    with checkpoint.CheckpointWriter(tmp_path, 10, Retention()) as writer:
        writer.save(1, {"w": np.ones(2)}, no_export)
    folder = tmp_path / "checkpoints"
    os.replace(folder / "000001", folder / "000001.displaced")
    checkpoint.CheckpointWriter(tmp_path, 10, Retention())
    assert read_step(folder / "last") == 1


def test_read_step_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint of a run: cannot read .*training_step\.json"):
        read_step(tmp_path)


def test_trouble_with_older_checkpoints_costs_no_new_one(tmp_path, monkeypatch, caplog):
    def gone(*arguments):
        raise OSError("removed by somebody else")

    monkeypatch.setattr(checkpoint, "prune", gone)
    with checkpoint.CheckpointWriter(tmp_path, 10, Retention()) as writer:
        writer.save(1, state(1.0), no_export)
    assert read_step(tmp_path / "checkpoints/last") == 1
    assert "could not be tidied up: removed by somebody else" in caplog.text
