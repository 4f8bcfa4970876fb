"""Checkpoints restore bit for bit, say what does not fit, and survive being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from pirl_jax.training import checkpoint


class Inner(NamedTuple):
    count: jax.Array
    empty: jax.Array


def example_state(seed: int = 0) -> dict:
    params = {
        "head": {"w": jax.random.normal(jax.random.key(seed), (5, 3)), "b": jnp.full((3,), -0.0)},
        "half": jax.random.normal(jax.random.key(seed + 1), (4,)).astype(jnp.bfloat16),
    }
    return {
        "params": params,
        "opt_state": optax.adamw(1e-3).init(params),
        "key": jax.random.key(seed + 7),
        "legacy_key": jax.random.PRNGKey(seed),
        "inner": (Inner(jnp.int32(3), jnp.zeros((0, 2))), [np.array([np.nan, 2**-149], np.float32)]),
        "version": 2**40 + seed,
        "beta": 0.1,
    }


def bits(tree) -> list[bytes]:
    def one(leaf):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf).tobytes()

    return [one(leaf) for leaf in jax.tree.leaves(tree)]


def no_export(folder: Path, state) -> None:
    (folder / "config.json").write_text("{}")


def test_restore_returns_the_same_bits_types_and_structure(tmp_path):
    state = example_state()
    checkpoint.save(tmp_path / "x", state)
    restored = checkpoint.restore(tmp_path / "x", example_state(seed=1))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert bits(restored) == bits(state)
    for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(state)):
        assert type(got) is type(want)
        assert getattr(got, "dtype", None) == getattr(want, "dtype", None)
    same_draw = jax.random.normal(restored["key"], (3,)) == jax.random.normal(state["key"], (3,))
    assert bool(same_draw.all())


def test_restore_takes_abstract_leaves(tmp_path):
    params = example_state()["params"]
    checkpoint.save(tmp_path / "x", params)
    restored = checkpoint.restore(tmp_path / "x", jax.eval_shape(lambda: params))
    assert bits(restored) == bits(params)


def test_restored_arrays_can_be_donated(tmp_path):
    state = {"w": jnp.arange(1000.0)}
    checkpoint.save(tmp_path / "x", state)
    restored = checkpoint.restore(tmp_path / "x", state)
    stepped = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(restored)
    np.testing.assert_array_equal(stepped["w"], np.arange(1000.0) + 1)
    assert bits(checkpoint.restore(tmp_path / "x", state)) == bits(state)


def test_load_needs_no_structure_and_keeps_bfloat16(tmp_path):
    checkpoint.save(tmp_path / "x", {"a": {"b": np.ones(3, ml_dtypes.bfloat16)}})
    loaded = checkpoint.load(tmp_path / "x")
    assert loaded["a"]["b"].dtype == ml_dtypes.bfloat16
    assert isinstance(loaded["a"]["b"], np.ndarray)


def test_a_mismatch_names_path_and_shapes(tmp_path):
    checkpoint.save(tmp_path / "x", {"a": {"w": np.zeros((3, 4), np.float32)}, "old": np.zeros(2, np.int32)})
    like = {"a": {"w": np.zeros((3, 5), np.float32)}, "new": np.zeros(1, np.float32)}
    with pytest.raises(ValueError) as error:
        checkpoint.restore(tmp_path / "x", like)
    message = str(error.value)
    assert "a.w is float32[3, 4], expected float32[3, 5]" in message
    assert "new is missing (expected float32[1])" in message
    assert "old is not expected (int32[2])" in message
    assert "train_config.json" in message
    like = {"a": {"w": jnp.zeros((3, 4), jnp.bfloat16)}, "old": np.zeros(2, np.int32)}
    with pytest.raises(ValueError, match=r"a\.w is float32\[3, 4\], expected bfloat16\[3, 4\]"):
        checkpoint.restore(tmp_path / "x", like)


def test_save_refuses_an_existing_folder_and_restore_a_foreign_one(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match="already exists"):
        checkpoint.save(tmp_path / "x", {"a": np.ones(2)})
    with pytest.raises(ValueError, match="not a complete Orbax checkpoint"):
        checkpoint.restore(tmp_path / "x", {"a": np.ones(2)})
    with pytest.raises(ValueError, match="not a complete Orbax checkpoint"):
        checkpoint.load(tmp_path / "absent")


def test_writer_makes_lerobots_layout(tmp_path):
    with checkpoint.CheckpointWriter(tmp_path, total_steps=1000) as writer:
        folder = writer.save(10, example_state(), no_export)
        assert folder == tmp_path / "checkpoints" / "000010"
        writer.save(20, example_state(seed=2), no_export)
    last = tmp_path / "checkpoints" / "last"
    assert os.readlink(last) == "000020"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000010", "000020", "last"]
    assert json.loads((folder / "training_state" / "training_step.json").read_text()) == {"step": 10}
    assert (folder / "pretrained_model" / "config.json").exists()
    assert checkpoint.read_step(last) == 20
    restored = checkpoint.restore(last / "training_state" / "orbax", example_state())
    assert bits(restored) == bits(example_state(seed=2))


def test_folder_names_are_padded_as_lerobot_pads_them():
    assert checkpoint.checkpoint_folder("o", 7, 1000).name == "000007"
    assert checkpoint.checkpoint_folder("o", 7, 12_345_678).name == "00000007"


def test_writer_snapshots_before_the_buffers_are_donated(tmp_path):
    state = {"w": jnp.arange(50_000.0)}
    want = np.arange(50_000.0, dtype=np.float32)
    seen = {}

    def slow_export(folder: Path, host_state) -> None:
        time.sleep(0.3)
        seen["w"] = host_state["w"].copy()

    step = jax.jit(lambda s: {"w": s["w"] * 0 - 1}, donate_argnums=0)
    with checkpoint.CheckpointWriter(tmp_path, 10) as writer:
        writer.save(1, state, slow_export)
        jax.block_until_ready(step(state))
    np.testing.assert_array_equal(seen["w"], want)
    stored = checkpoint.load(tmp_path / "checkpoints" / "000001" / "training_state" / "orbax")
    np.testing.assert_array_equal(stored["w"], want)


def test_saving_a_step_again_replaces_it(tmp_path):
    like = {"w": np.zeros(3, np.float32)}
    with checkpoint.CheckpointWriter(tmp_path, 10) as writer:
        writer.save(1, {"w": np.full(3, 1.0, np.float32)}, no_export)
        writer.save(1, {"w": np.full(3, 2.0, np.float32)}, no_export)
    restored = checkpoint.restore(tmp_path / "checkpoints" / "last" / "training_state" / "orbax", like)
    np.testing.assert_array_equal(restored["w"], 2.0)


def test_a_failed_export_surfaces_at_the_next_call_and_leaves_last_alone(tmp_path):
    def failing(folder: Path, state) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    writer = checkpoint.CheckpointWriter(tmp_path, 10)
    writer.save(1, {"w": np.ones(2)}, no_export)
    writer.save(2, {"w": np.ones(2)}, failing)
    with pytest.raises(checkpoint.CheckpointError, match="disk full"):
        writer.save(3, {"w": np.ones(2)}, no_export)
    writer.save(3, {"w": np.ones(2)}, no_export)
    writer.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000001", "000003", "last"]


def test_the_state_of_the_end_is_saved_if_the_save_before_it_failed(tmp_path):
    """What a full disk held up at the save before may fit by the end."""

    def failing(folder: Path, state) -> None:
        raise OSError("disk full")

    with checkpoint.CheckpointWriter(tmp_path, 10) as writer:
        writer.save(1, {"w": np.ones(2)}, failing)
        with pytest.raises(checkpoint.CheckpointError):
            writer.save(2, {"w": np.ones(2)}, no_export)
        checkpoint.save_last(writer, 2, {"w": np.ones(2)}, no_export)
        assert writer.saved == 2
        checkpoint.save_last(writer, 2, {"w": np.zeros(2)}, no_export)  # it is saved already
    state = checkpoint.load(tmp_path / "checkpoints" / "last" / "training_state" / "orbax")
    np.testing.assert_array_equal(state["w"], 1.0)


def test_a_state_whose_memory_the_failed_update_has_used_is_not_saved_and_that_is_said(tmp_path, caplog):
    state = {"w": jnp.ones(3), "n": jnp.zeros(2)}
    state["w"].delete()
    with checkpoint.CheckpointWriter(tmp_path, 10) as writer:
        checkpoint.save_last(writer, 3, state, no_export)
    assert "step 3 cannot be saved" in caplog.text
    assert not list((tmp_path / "checkpoints").glob("0*"))


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from pirl_jax.training import checkpoint

def export(folder, state):
    (folder / "config.json").write_text("{}")
    if state["n"] == 2:
        (folder / "model.safetensors").write_bytes(b"half")
        print("exporting", flush=True)
        time.sleep(60)

writer = checkpoint.CheckpointWriter(Path(sys.argv[1]), 10)
for n in (1, 2):
    writer.save(n, {"n": n}, export)
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
    assert checkpoint.restore(folder / "last" / "training_state" / "orbax", {"n": 0}) == {"n": 1}

    checkpoint.CheckpointWriter(tmp_path, 10)
    assert sorted(p.name for p in folder.iterdir()) == ["000001", "last"]


def test_the_next_writer_restores_a_checkpoint_that_was_being_replaced(tmp_path):
    with checkpoint.CheckpointWriter(tmp_path, 10) as writer:
        writer.save(1, {"w": np.ones(2)}, no_export)
    folder = tmp_path / "checkpoints"
    os.replace(folder / "000001", folder / "000001.old")
    checkpoint.CheckpointWriter(tmp_path, 10)
    assert checkpoint.read_step(folder / "last") == 1


def test_read_step_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint of a run: cannot read .*training_step\.json"):
        checkpoint.read_step(tmp_path)
