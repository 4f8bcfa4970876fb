"""What nobody has foreseen ends a command with one line, and its traceback is in a file."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from lerobot.configs import parser
from tiny import tiny_policy_config, write_run_config

import bridge.demo.__main__ as demo
from bridge.evaluate import __main__ as evaluation
from bridge.launch import command as launch
from bridge.launch import facts
from bridge.libero import record
from bridge.libero.experts import command_line
from bridge.settings.learner_config import check_seed
from pirl_jax import learner, serve
from pirl_jax.ending import fail
from pirl_jax.recipe import LaunchConfig
from pirl_jax.run_folder.lock import occupied, set_aside


def broken(*_, **__):
    {}["nowhere"]


def elsewhere(*_):
    """A ValueError of code that knows nothing of users."""
    int("three")


def foreseen(*_):
    check_seed(-1)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run something as the learner's command does; return its last line."""
    monkeypatch.setattr(parser, "_config_path_args", {})
    monkeypatch.setattr(parser, "_config_yaml_overrides", {})
    base = tmp_path / "base"
    base.mkdir()
    tiny_policy_config(tokenizer_name=str(tmp_path / "tokenizer"))._save_pretrained(base)
    path = write_run_config(tmp_path, 50051)

    def inner(what, **options):
        monkeypatch.setattr(sys, "argv", ["learner", f"--config_path={path}", f"--policy.path={base}"])
        with pytest.raises(SystemExit) as ended:
            learner.command(what, **options)
        return ended.value.code

    return inner


def last_traceback(folder):
    return (folder / "traceback.log").read_text().rstrip().splitlines()[-1]


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        (broken, "KeyError", "'nowhere'"),
        (elsewhere, "ValueError", "invalid literal for int() with base 10: 'three'"),
    ],
)
def test_what_was_not_foreseen_is_one_line_and_its_traceback_is_in_output_dir(
    run, tmp_path, what, kind, said
):
    out = tmp_path / "output"
    assert run(what) == f"error: {kind}: {said} (not foreseen; the traceback is in {out}/traceback.log)"
    assert last_traceback(out) == f"{kind}: {said}"
    set_aside(out)  # nothing is in the way of the same command
    assert not out.exists()
    assert last_traceback(tmp_path / "output.without_checkpoint-1") == f"{kind}: {said}"


def test_what_was_foreseen_has_its_own_words(run, tmp_path):
    line = "error: seed must be a number from 0 to 2^32 - 1: all is drawn from it; got -1."
    assert run(foreseen) == line
    assert not (tmp_path / "output").exists()

    def with_results(cfg):
        with occupied(tmp_path / "output"):
            (tmp_path / "output" / "metrics.jsonl").write_text("{}\n")
            foreseen()

    assert run(with_results) == line
    assert last_traceback(tmp_path / "output") == f"ValueError: {line.removeprefix('error: ')}"


def test_a_run_that_was_kept_out_of_a_folder_writes_nothing_there(run, tmp_path):
    def occupied_by_another(cfg):
        (tmp_path / "output").mkdir()
        (tmp_path / "output" / ".lock").write_text("1\n")
        foreseen()

    run(occupied_by_another)
    assert not (tmp_path / "output" / "traceback.log").exists()


def test_without_a_place_for_it_python_prints_the_traceback(run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (None, tmp_path / "file" / "folder"):
        with pytest.raises(KeyError):
            fail(KeyError("nowhere"), folder)
    monkeypatch.setattr(sys, "argv", ["learner", "--nothing"])
    with pytest.raises(KeyError):
        learner.run_command(print, broken)
    assert not (tmp_path / "output").exists()


def test_a_policy_server_which_has_no_folder_prints_the_traceback(run, tmp_path, monkeypatch):
    """It would lie in a temporary one that goes with the process."""
    arguments = [f"--config_path={tmp_path}/run.json", f"--policy.path={tmp_path}/base"]
    monkeypatch.setattr(sys, "argv", ["serve", *arguments])
    monkeypatch.setattr(serve, "serve", broken)
    with pytest.raises(KeyError):
        serve.main()


def record_command(monkeypatch, folder):
    monkeypatch.setattr(command_line, "select_tasks", broken)
    return record.main, [f"--output_dir={folder}"]


def demo_command(monkeypatch, folder):
    monkeypatch.setattr(demo, "_run", broken)
    return demo.main, [f"--output_dir={folder}"]


def launch_command(monkeypatch, folder):
    monkeypatch.setattr(
        launch,
        "prepare",
        lambda arguments: SimpleNamespace(begun=None, folder=folder, settings=LaunchConfig()),
    )
    monkeypatch.setattr(launch, "Supervisor", broken)
    return launch.main, ["--seed=3"]


def evaluation_command(monkeypatch, folder):
    settings = SimpleNamespace(
        identity=dict, tasks_per_process=1, checkpoint=SimpleNamespace(path=folder, label="run")
    )
    monkeypatch.setattr(evaluation, "package_root", lambda: None)
    monkeypatch.setattr(evaluation, "check_configured", lambda: None)
    monkeypatch.setattr(evaluation, "Checkpoint", SimpleNamespace(read=lambda path: None))
    monkeypatch.setattr(evaluation, "Settings", SimpleNamespace(make=lambda *_, **__: settings))
    monkeypatch.setattr(evaluation, "evaluate", broken)
    return evaluation.main, ["checkpoint", "--preset=smoke", f"--output_dir={folder}"]


@pytest.mark.parametrize("command", [record_command, demo_command, launch_command, evaluation_command])
def test_every_command_with_a_folder_leaves_the_traceback_there(command, monkeypatch, tmp_path):
    folder = tmp_path / "folder"
    main, arguments = command(monkeypatch, folder)
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == (
        f"error: KeyError: 'nowhere' (not foreseen; the traceback is in {folder}/traceback.log)"
    )
    assert last_traceback(folder) == "KeyError: 'nowhere'"


def test_what_a_launch_could_not_read_a_config_for_is_told_with_its_traceback(monkeypatch, capsys):
    said = "Traceback (most recent call last):\nKeyError: 'nowhere'\n"
    done = SimpleNamespace(returncode=1, stderr=said, stdout="")
    monkeypatch.setattr(facts.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(ValueError, match="KeyError: 'nowhere'"):
        facts.read_facts([])
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("phase", ["the start", "demonstrations"])
def test_ctrl_c_ends_the_demo_with_one_line_and_everything_that_it_has_started(tmp_path, phase):
    """A terminal sends it to all processes of the demo."""
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-m", "bridge.demo", f"--output_dir={out}", "--demonstrations=5000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 100
        started, there = psutil.Process(process.pid), out if phase == "the start" else out / "dataset"
        while not (there.exists() and (phase == "the start" or len(started.children()) > 4)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.3 if phase == "the start" else 3)  # workers import, or play
        children = started.children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=40)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == (
        f"stopped by SIGINT; what was done is in {out}, and the next demo begins anew"
    )
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, [child.cmdline() for child in alive]
