"""The batch script of docs/scaling.md under a scheduler that is a stand-in, and Ctrl-C in a terminal."""

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_in import save

from bridge.processes import free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture
def environment(tmp_path):
    """What a job finds: ``pirl-launch`` with stand-ins behind it, and the scheduler's own command."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, line in (
        ("pirl-launch", f'exec {sys.executable} {HERE / "stand_in_launch.py"} "$@"'),
        ("scontrol", f'echo "$@" >> {tmp_path / "scheduler"}'),
    ):
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    for config in ("cfg.json", "configs/pirl_libero_80gb.json"):  # which nobody reads
        (tmp_path / config).parent.mkdir(exist_ok=True)
        (tmp_path / config).touch()
    return os.environ | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path)]),
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NAME": "pirl",
        "STAND_IN": str(tmp_path),
        "STAND_IN_PORT": str(free_port()),
    }


def start(command, folder, environment):
    with (folder / "out").open("ab") as out:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True
        )


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_life(folder, process):
    deadline = time.monotonic() + 30
    while not (folder / "0.beat").exists():
        assert process.poll() is None, (folder / "out").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_job_whose_time_is_up_saves_asks_to_be_queued_again_and_goes_on(tmp_path, environment):
    page = (ROOT / "docs/scaling.md").read_text()
    (script,) = re.findall(r"^```bash\n(#!/bin/bash\n#SBATCH --job-name=pirl\n.*?)^```", page, re.M | re.S)
    assert "#SBATCH --signal=B:TERM@" in script  # to the script alone, which must pass it on
    assert "#SBATCH --requeue" in script
    script = re.sub(r"^RUN=.*$", f"RUN={tmp_path}/run", script, flags=re.M)
    (tmp_path / "job.sh").write_text(script)
    job = start(["bash", "job.sh"], tmp_path, environment)
    wait_for_life(tmp_path, job)
    job.terminate()
    assert job.wait(30) == 128 + signal.SIGTERM
    out = (tmp_path / "out").read_text()
    assert "stopped: update 3 is saved; go on with: pirl-launch " in out.splitlines()[-1]
    assert (tmp_path / "scheduler").read_text() == "requeue 42\n"

    again = start(["bash", "job.sh"], tmp_path, environment)
    assert again.wait(30) == 0, (tmp_path / "out").read_text()
    last = (tmp_path / "out").read_text().splitlines()[-2:]
    assert last[0].startswith("finished: all 10 updates; ")
    assert last[1] == f"metrics, a line an update: {tmp_path}/run/metrics.jsonl"
    assert (tmp_path / "scheduler").read_text() == "requeue 42\n"


def test_ctrl_c_reaches_the_launch_alone_and_the_learner_saves(tmp_path, environment):
    launch = start(["pirl-launch", "--config_path=cfg.json"], tmp_path, environment)
    wait_for_life(tmp_path, launch)
    os.killpg(launch.pid, signal.SIGINT)  # as a terminal does, to all that belong to it
    assert launch.wait(30) == 128 + signal.SIGINT
    last = (tmp_path / "out").read_text().splitlines()[-1]
    command = f"pirl-launch --config_path=cfg.json --output_dir={tmp_path}/run --resume=auto"
    assert last == f"stopped: update 3 is saved; go on with: {command}"
    again = subprocess.run(command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 0
    assert again.stdout.splitlines()[-2].startswith("finished: ")


def test_whoever_reads_the_output_may_end_and_the_learner_saves(tmp_path, environment):
    """As ``pirl-launch … | head -n 1``."""
    command = ["pirl-launch", "--config_path=cfg.json"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as launch:
        assert "reading the config" in launch.stdout.readline()
        assert "the learner starts" in launch.stdout.readline()
        launch.stdout.close()
        said = launch.stderr.read().splitlines()
    assert launch.returncode == 128 + signal.SIGPIPE, said
    assert said[0] == "nobody reads the output any more"
    assert said[-1].startswith("stopped: update 3 is saved; go on with: pirl-launch ")
    assert not (tmp_path / "run.launch/traceback.log").exists()


def test_a_terminal_that_is_closed_has_the_learner_save(tmp_path, environment):
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        os.execvpe("pirl-launch", ["pirl-launch", "--config_path=cfg.json"], environment)
    try:
        until(lambda: (tmp_path / "0.beat").exists())
        said = b""
        while b"the learner starts" not in said:
            said += os.read(terminal, 1 << 16)
        os.close(terminal)
        until(lambda: (tmp_path / "run/checkpoints/last").exists())  # saved, as the stand-in is told to
    finally:
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert not (tmp_path / "run.launch/traceback.log").exists()


def test_a_terminal_on_which_no_table_can_stay_gets_lines(tmp_path, environment):
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        save(tmp_path / "run", 3)
        given = ["--resume=auto", "--config_path=cfg.json", f"--output_dir={tmp_path}/run"]
        os.execvpe("pirl-launch", ["pirl-launch", *given], environment | {"TERM": "dumb"})
    said = b""
    with contextlib.suppress(OSError):  # how a terminal's end is read
        while more := os.read(terminal, 1 << 16):
            said += more
    os.waitpid(pid, 0)
    assert b"the learner listens" in said
    assert b"\x1b" not in said
    assert b"versions behind" not in said


def test_a_launch_that_fails_says_so_in_its_last_line_and_its_status(tmp_path, environment):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment["STAND_IN_PORT"] = str(taken.getsockname()[1])
        command = ["pirl-launch", "--config_path=cfg.json"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Cannot listen on 127.0.0.1:")


def test_the_process_that_stays_beside_a_run_loads_neither_torch_nor_lerobot_nor_jax():
    program = "import sys, bridge.launch.command; print({'torch', 'lerobot', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
