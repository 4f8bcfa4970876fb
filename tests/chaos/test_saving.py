"""A run is killed while it saves, its files rot, its disk is full: it goes on from what is whole."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forked import Command

from pirl_jax.run_folder.layout import read_step
from pirl_jax.run_folder.manifest import MANIFEST, DamageError, damage, whole
from pirl_jax.run_folder.retention import Retention
from pirl_jax.training import checkpoint
from pirl_jax.trees import store

HERE = Path(__file__).parent
CONFIG = Path("checkpoints/last/pretrained_model/train_config.json")


def save(output_dir, fatal):
    log = output_dir.with_suffix(".log")
    command = Command("saver", [str(output_dir), str(fatal)], log)
    return command.wait(120), log.read_text()


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    """How many changes of names and flushes two saves take."""
    status, text = save(tmp_path_factory.mktemp("count") / "run", 0)
    assert status == 0, text
    return int(text.splitlines()[-1])


def test_killed_at_any_step_of_a_save_a_run_goes_on_from_a_whole_checkpoint(
    tmp_path, changes, point, pytestconfig, record_property
):
    """Which holds what was saved under its step, and is the last but one at worst."""
    # Threads that make the same folder need now and then a change less.
    fatal = 1 + point * (changes - 3) // max(1, pytestconfig.getoption("crash_points") - 1)
    record_property("changes_of_names_and_flushes", changes)
    status, text = save(tmp_path / "run", fatal)
    assert status == 9, text
    config = whole(tmp_path / "run" / CONFIG)
    folder = config.parents[1]
    assert config.exists()
    assert damage(folder) is None
    step = read_step(folder)
    saved = checkpoint.restore(folder, {"n": 0, "w": np.zeros(1000)})
    assert (step, int(saved["n"])) in ((3, 3), (3, 13), (4, 14))
    np.testing.assert_array_equal(saved["w"], float(saved["n"]))
    assert (folder / "pretrained_model/model.safetensors").read_bytes() == np.asarray(saved["w"]).tobytes()
    with checkpoint.CheckpointWriter(tmp_path / "run", 10, Retention()) as writer:
        writer.save(5, {"n": 5, "w": np.zeros(1000)}, lambda folder, state: None)
    left = [path.name for path in (tmp_path / "run/checkpoints").iterdir()]
    assert sorted(left)[-3:] == ["000005", "best", "last"], "nothing half-done stays"
    assert all(name.isdigit() for name in sorted(left)[:-2])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A run with two whole checkpoints."""
    output_dir = tmp_path_factory.mktemp("pair") / "run"
    status, text = save(output_dir, 0)
    assert status == 0, text
    return output_dir


def test_one_flipped_bit_in_any_file_is_named_and_the_checkpoint_before_it_taken(pair, tmp_path, caplog):
    last = (pair / "checkpoints/last").resolve()
    files = sorted(
        path.relative_to(last) for path in last.rglob("*") if path.is_file() and path.stat().st_size
    )
    assert len(files) > 8
    for file in files:
        run = tmp_path / "run"
        shutil.copytree(pair, run, symlinks=True)
        path = run / "checkpoints" / last.name / file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0b100
        path.write_bytes(content)
        caplog.clear()
        found = whole(run / CONFIG)
        assert read_step(found.parents[1]) == 3
        named = "" if file.name == MANIFEST else file  # a hash in it that is wrong speaks of another file
        assert f"{last.name} is damaged: {named}" in caplog.text
        with pytest.raises(DamageError, match="Whole are those of step"):
            whole(path.parents[len(file.parts) - 1] / "pretrained_model/train_config.json")
        shutil.rmtree(run)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


FULL = """
import logging, sys
from pathlib import Path
import numpy as np
from pirl_jax.run_folder.retention import Retention
from pirl_jax.training import checkpoint

logging.getLogger("absl").setLevel(logging.CRITICAL)  # as the commands do
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
checkpoint.RETRY_S = 0
disk = Path(sys.argv[1])
state = {"w": np.zeros(80_000)}
export = lambda folder, state: (folder / "model.safetensors").write_bytes(bytes(400_000))
with checkpoint.CheckpointWriter(disk / "run", 10, Retention()) as writer:
    writer.save(1, state, export)
    writer.wait()
    if sys.argv[2] == "unforeseen":
        writer._size = 0  # as if the checkpoint before had been smaller
    (disk / "ballast").write_bytes(bytes(int(sys.argv[3])))
    writer.save(2, state, export)
    writer._thread.join()
    assert writer.to_be_tried_again
    (disk / "ballast").unlink()
    writer.save(3, state, export)
"""


@pytest.mark.parametrize("when", ["foreseen", "unforeseen"])
def test_a_full_disk_costs_one_checkpoint_and_nothing_else(small_disk, when):
    done = subprocess.run(
        [sys.executable, "-c", FULL, small_disk, when, str(2_300_000)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert len(said) == 1, done.stderr[-3000:]
    assert "000002 could not be written: " in said[0]
    assert ("the disk is full" if when == "unforeseen" else "and the disk has 0.0 GB left") in said[0]
    assert len(done.stderr.splitlines()) < 10, done.stderr
    last = small_disk / "run/checkpoints/last"
    assert read_step(last) == 3
    assert damage(last) is None
    assert store.load(last / "training_state/orbax")["w"].shape == (80_000,)
    assert not list((small_disk / "run/checkpoints").glob("*.tmp"))
