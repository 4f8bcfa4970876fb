"""One run a folder, and nothing in the way of the next."""

import subprocess
import sys

import pytest

from pirl_jax.run_folder.lock import LOCK, occupied, set_aside

HOLD = "import sys, time; from pathlib import Path; from pirl_jax.run_folder.lock import occupied\n" + (
    "with occupied(Path(sys.argv[1])):\n    (Path(sys.argv[1]) / 'metrics.jsonl').write_text(sys.argv[2])\n"
    "    print('in', flush=True)\n    time.sleep(60)"
)


@pytest.fixture
def other(tmp_path):
    """Another process that writes to ``run``."""
    started = []

    def start(lines):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, tmp_path / "run", lines], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "in\n"
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_second_run_is_kept_out_and_told_of_the_first(tmp_path, other):
    process = other("{}\n")
    words = f"another run writes to .*run \\(process {process.pid}\\). Stop it, or give another --output_dir."
    with pytest.raises(ValueError, match=words), occupied(tmp_path / "run"):
        pass
    with pytest.raises(ValueError, match=words):
        set_aside(tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == "{}\n"


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(ValueError, match=r"output_dir=.*/run is a file. Give another --output_dir."):
        set_aside(tmp_path / "run")


def test_a_killed_run_holds_no_folder(tmp_path, other):
    process = other("{}\n")
    process.kill()
    process.wait()
    with occupied(tmp_path / "run"):
        pass


def test_a_run_that_made_nothing_leaves_nothing(tmp_path):
    with occupied(tmp_path / "run"):
        (tmp_path / "run" / "metrics.jsonl").touch()
        (tmp_path / "run" / "checkpoints").mkdir()
    assert not (tmp_path / "run").exists()


def test_what_a_run_has_made_stays(tmp_path):
    with occupied(tmp_path / "run"):
        (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_killed_run_without_a_checkpoint_makes_way_and_is_kept(tmp_path, other, caplog):
    for number in (1, 2):
        process = other(f"{number}\n")
        process.kill()
        process.wait()
        set_aside(tmp_path / "run")
        assert not (tmp_path / "run").exists()
        aside = tmp_path / f"run.without_checkpoint-{number}"
        assert (aside / "metrics.jsonl").read_text() == f"{number}\n"
        assert f"run held a run that ended before its first checkpoint; it is {aside} now" in caplog.text


def test_one_killed_before_it_had_anything_just_goes(tmp_path, other):
    process = other("")
    process.kill()
    process.wait()
    set_aside(tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["checkpoint", "others"])
def test_nothing_else_is_moved(tmp_path, what):
    folder = tmp_path / "run"
    if what == "checkpoint":
        (folder / "checkpoints" / "000010").mkdir(parents=True)
        (folder / LOCK).touch()
    else:
        folder.mkdir()
        (folder / "thesis.tex").touch()
    before = sorted(tmp_path.rglob("*"))
    set_aside(folder)
    assert sorted(tmp_path.rglob("*")) == before
