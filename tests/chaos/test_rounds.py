"""A launch of four stock actors in which, round after round, somebody is killed, ended or stands still.

Five rounds, or ``--rounds=20``; with ``--served`` two policy servers act, whose turn comes too.
"""

import contextlib
import json
import os
import signal
import socket
import time

import numpy as np
import pytest
from real_launch import Launch
from test_learner import free_port, write_config

from bridge.launch.slot import Slot
from pirl_jax.trees import store

ACTORS, BACK_S = 4, 30.0


@pytest.fixture
def launch(tmp_path, monkeypatch, pytestconfig):
    hang_after_s = pytestconfig.getoption("hang_after_s")
    served = {"inference": "served", "serve": {"mode": "process", "replicas": 2, "port": free_ports(2)}}
    config = write_config(
        tmp_path,
        free_port(),
        env={"gym_id": "coin_env:Coin-v0", "gym_kwargs": {"seconds": 0.05}},
        algorithm={
            "rollout": {"max_staleness": 1},
            "launch": {"actors": ACTORS, "backoff_s": 0.1, "hang_after_s": hang_after_s, "max_restarts": 99},
            **(served if pytestconfig.getoption("served") else {}),
        },
    )
    run = Launch(tmp_path, monkeypatch, f"--config_path={config}", "--steps=4000", "--resume=auto")
    yield run
    run.close()


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        first = free_port()
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
            for port in range(first, first + count):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def trouble(run: Launch, number: int) -> tuple[list[Slot], bool]:
    """What happens in a round; return whose process has to be another afterwards, and whether one hangs."""
    learner, actors = run.supervisor.learner, [actor.slot for actor in run.supervisor.actors]
    servers = [server.slot for server in run.supervisor.policy_servers]
    number %= 7 if servers else 5
    if number == 0:
        learner.process.kill()
        return [learner], False
    if number == 1:
        actors[0].process.kill()
        actors[1].process.terminate()
        return actors[:2], False
    if number == 2:
        os.kill(actors[2].process.pid, signal.SIGSTOP)
        learner.process.kill()
        return [actors[2], learner], True
    if number == 3:
        os.kill(learner.process.pid, signal.SIGSTOP)
        return [learner], True
    if number == 4:
        for actor in actors:
            actor.process.kill()
        return actors, False
    if number == 5:
        servers[0].process.kill()
        return servers[:1], False
    os.kill(servers[1].process.pid, signal.SIGSTOP)
    return servers[1:], True


def slots(run: Launch) -> list[Slot]:
    """The places of learner, actors and policy servers."""
    workers = (*run.supervisor.actors, *run.supervisor.policy_servers)
    return [run.supervisor.learner, *(worker.slot for worker in workers)]


def all_back(run: Launch) -> bool:
    """Tell whether the learner answers and everyone is there."""
    status = run.supervisor.status
    return (
        status is not None
        and all(actor.registered for actor in run.supervisor.actors)
        and {actor.name for actor in status.actors} == {str(i) for i in range(ACTORS)}
        and all(actor.silent_ms < 5000 for actor in status.actors)
        and len(status.servers) == len(run.supervisor.policy_servers)
    )


def test_rounds_of_trouble_cost_no_episode_and_nobody_stays_away(
    launch, tmp_path, pytestconfig, record_property
):
    launch.until(lambda: all_back(launch) and launch.supervisor.status.update >= 2, 300)
    away = []
    for number in range(pytestconfig.getoption("rounds")):
        before = launch.supervisor.status.update
        starts = {slot.name: slot.restarts for slot in slots(launch)}
        struck, hangs = trouble(launch, number)
        started = time.monotonic()
        hang = launch.plan.settings.hang_after_s if hangs else 0
        launch.until(
            lambda struck=struck, starts=starts: (
                all(slot.restarts > starts[slot.name] for slot in struck) and all_back(launch)
            ),
            300,
        )
        away.append(time.monotonic() - started - hang)
        print(f"round {number}: all back after {away[-1]:.1f} s, update {before}", flush=True)
        launch.until(
            lambda before=before: launch.supervisor.status and launch.supervisor.status.update > before, 300
        )
    # Less those until a process that stands still counts as hanging.
    record_property("seconds_until_all_were_back", [round(seconds, 1) for seconds in away])
    launch.supervisor.ask_to_stop()
    outcome = launch.end()
    assert outcome.end == "stopped", outcome
    assert max(away) < BACK_S, away

    # Every update learned from its four numbers, and every number below the mark was used once or dropped.
    state = store.load(tmp_path / "output/checkpoints/last/training_state/orbax")
    record_property("updates", int(state["updates"]))
    rows = [json.loads(line) for line in (tmp_path / "output/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, int(state["updates"]) + 1))
    assert {row["train/episodes"] for row in rows} == {4}
    given_up = sum(row["dropped/given_up"] for row in rows)
    assert int(state["episodes"]) == 4 * len(rows) + given_up
    assert given_up == 0
    assert np.all([row["train/actor_learner_logprob_gap"] < 1e-3 for row in rows])
