"""``pirl-launch --backend=ray`` on two nodes: an actor is killed, a node taken away, the run completes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from certificates import TOKEN, Authority
from conftest import STORE
from test_learner import free_port, write_config

pytestmark = pytest.mark.e2e
UPDATES = 40
GONE = "pirl-launch: its node, or Ray's process there, is gone"


@pytest.fixture
def launch(tmp_path, nodes, monkeypatch):
    """Start it, with token and TLS, on an address that other machines would find."""
    here = nodes.head_node.node_ip_address
    assert not here.startswith("127."), "this machine has no address but its own"
    config = write_config(
        tmp_path,
        port := free_port(),
        env={"gym_id": "coin_env:Coin-v0", "gym_kwargs": {"seconds": 0.05}},
        algorithm={
            "actor_learner_config": {"learner_host": here, "learner_port": port, "queue_get_timeout": 0.2},
            "security": Authority(tmp_path / "secrets", here).server,
            "launch": {"actors": 2, "backoff_s": 0.1, "cpus": 1, "learner_cpus": 1},
        },
    )
    command = [sys.executable, "-m", "bridge.launch", f"--config_path={config}", "--backend=ray"]
    with (tmp_path / "launch.log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--steps={UPDATES}", "--save_freq=20"],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env={**os.environ, "RAY_ADDRESS": nodes.address, "PIRL_TOKEN": TOKEN},
        )
    yield process
    process.kill()
    process.wait()


def actors():
    """Return each stock actor's process: number → (id, the raylet of its node)."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
            variables = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        raylets = [text.partition("=")[2] for text in variables if text.startswith("RAY_RAYLET_PID=")]
        numbers = [text.rpartition("=")[2] for text in command if text.startswith("--env.actor_id=")]
        if raylets and numbers and "bound.py" not in " ".join(command):
            found[int(numbers[0])] = int(folder.name), int(raylets[0])
    return found


def rows(folder):
    file = folder / "output/metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_run_outlives_an_actor_and_a_node(tmp_path, nodes, launch):
    second = nodes.add_node(num_cpus=2, object_store_memory=STORE)
    log = tmp_path / "launch.log"

    def until(condition, timeout=240.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, log.read_text()
            assert launch.poll() is None, log.read_text()
            time.sleep(0.1)

    until(lambda: len(rows(tmp_path)) >= 2)
    raylet = second.all_processes["raylet"][0].process.pid
    until(lambda: any(node == raylet for _, node in actors().values()))
    struck = min(actors())
    os.kill(actors()[struck][0], signal.SIGKILL)
    until(lambda: re.search(rf"actor {struck} was killed by SIGKILL and is started again", log.read_text()))
    before = len(rows(tmp_path))
    until(lambda: len(actors()) == 2 and len(rows(tmp_path)) > before)

    there = sorted(number for number, (_, node) in actors().items() if node == raylet)
    assert there
    nodes.remove_node(second)
    for number in there:
        logs = tmp_path / f"output.launch/actor{number}"
        until(lambda logs=logs: any(GONE in file.read_text() for file in logs.glob("*.log")))
    assert len(rows(tmp_path)) < UPDATES
    assert launch.wait(300) == 0, log.read_text()
    assert f"finished: all {UPDATES} updates" in log.read_text()
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, UPDATES + 1))
    assert actors() == {}

    learner = (tmp_path / "output.launch/learner/01.log").read_text()
    assert ", with token and TLS." in learner
    session = Path(nodes.head_node.get_session_dir_path())
    holding = [
        file
        for folder in (tmp_path, session)
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink() and TOKEN.encode() in file.read_bytes()
    ]
    assert not holding
