"""Processes on the node of a real Ray cluster: their logs, their ends, and those that wait for room."""

import dataclasses
import os
import sys
import time

import pytest
from house import House

from bridge.launch.actor import Actor
from bridge.launch.cluster import Cluster, processes_of

WORDS = """
import os, signal, sys, time
print(os.environ.get("PIRL_WORD"), os.environ.get("OTHER_WORD"), os.getcwd(), flush=True)
print(os.getpid(), flush=True)
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
time.sleep(0 if sys.argv[1] == "brief" else 600)
sys.exit(3)
"""


@pytest.fixture
def plan(tmp_path, nodes, monkeypatch):
    (tmp_path / "words.py").write_text(WORDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Actor, "module", "words")
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    plan = House(tmp_path, {"0": ["run"]}).plan
    return dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, backend="ray"))


@pytest.fixture
def start(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("PIRL_WORD", "travels")
    monkeypatch.setenv("OTHER_WORD", "stays")
    said = []
    with processes_of(plan, said.append) as start:
        yield lambda *arguments: start("words", arguments, tmp_path / "log", {})
    assert not said


def until(condition):
    deadline = time.monotonic() + 40
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def lines(process, path):
    """Return the log of a process that has been asked for news."""
    process.poll()
    return (path / "log").read_text().splitlines()


def pid_of(process, path):
    return int(until(lambda: [line for line in lines(process, path) if line.isdecimal()])[0])


def gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def test_log_and_status_come_from_the_node_and_the_launchs_variables_go_there(start, tmp_path):
    process = start("brief")
    assert until(process.poll) == 3
    first, second, pid = lines(process, tmp_path)
    assert first == "pirl-launch: waits for a node that has 1 CPUs and 0 GPUs free"
    assert second == f"travels None {tmp_path}"
    until(lambda: gone(pid))
    process.kill()
    process.terminate()
    assert process.poll() == 3


def test_it_is_asked_to_end_and_killed(start, tmp_path):
    asked = start("long")
    pid_of(asked, tmp_path)
    asked.terminate()
    assert until(asked.poll) == -15
    stubborn = start("stubborn")
    pid = pid_of(stubborn, tmp_path)
    stubborn.terminate()
    until(lambda: "no" in lines(stubborn, tmp_path))
    assert stubborn.poll() is None
    stubborn.kill()
    assert stubborn.poll() == -9
    until(lambda: gone(pid))


def test_one_without_room_waits_and_can_be_ended(start, tmp_path):
    running = [start("long"), start("long")]
    until(lambda: [process.poll() for process in running] and all(process.placed for process in running))
    waits = start("long")
    time.sleep(1)
    assert (waits.poll(), waits.placed) == (None, False)
    waits.terminate()
    assert waits.poll() == -15
    waits = start("long")
    running[0].kill()
    until(lambda: waits.poll() is None and waits.placed)


def test_none_outlives_the_launchs_connection(plan, tmp_path):
    with processes_of(plan, print) as start:
        process = start("words", ["long"], tmp_path / "log", {})
        pid = pid_of(process, tmp_path)
    until(lambda: gone(pid))


def test_what_the_run_takes_beyond_the_cluster_is_said(plan):
    settings = dataclasses.replace(plan.settings, actors=9, gpus=0.5)
    said = []
    with processes_of(dataclasses.replace(plan, settings=settings), said.append):
        pass
    assert said == [
        "the run takes 10 CPUs and 4.5 GPUs, the cluster has 2 CPUs and 0 GPUs: "
        "some processes wait until there is room"
    ]


def test_a_cluster_that_is_not_there_is_told_with_what_to_do(plan, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ValueError, match=r"^no Ray cluster can be joined at RAY_ADDRESS=127.0.0.1:1 .*head"):
        Cluster(plan)
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    with pytest.raises(ValueError, match=r"ray://127.0.0.1:10001 is not supported: start pirl-launch on a"):
        Cluster(plan)
    assert sys.modules["ray"].is_initialized() is False
