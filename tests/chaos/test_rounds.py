"""A launch of four stock actors in which, round after round, somebody is killed, ended or stands still."""

import json
import os
import signal
import time

import numpy as np
import pytest
from real_launch import Launch
from test_learner import free_port, write_config

from bridge.launch.slot import Slot
from pirl_jax.trees import store

ACTORS, BACK_S = 4, 30.0


@pytest.fixture
def launch(tmp_path, monkeypatch):
    config = write_config(
        tmp_path,
        free_port(),
        env={"gym_id": "coin_env:Coin-v0", "gym_kwargs": {"seconds": 0.05}},
        algorithm={
            "rollout": {"max_staleness": 1},
            "launch": {"actors": ACTORS, "backoff_s": 0.1, "hang_after_s": 10.0, "max_restarts": 9},
        },
    )
    run = Launch(tmp_path, monkeypatch, f"--config_path={config}", "--steps=400", "--resume=auto")
    yield run
    run.close()


def trouble(run: Launch, number: int) -> list[Slot]:
    """What happens in a round; return whose process has to be another afterwards."""
    learner, actors = run.supervisor.learner, [actor.slot for actor in run.supervisor.actors]
    if number == 0:
        learner.process.kill()
        return [learner]
    if number == 1:
        actors[0].process.kill()
        actors[1].process.terminate()
        return actors[:2]
    if number == 2:
        os.kill(actors[2].process.pid, signal.SIGSTOP)
        learner.process.kill()
        return [actors[2], learner]
    if number == 3:
        os.kill(learner.process.pid, signal.SIGSTOP)
        return [learner]
    for actor in actors:
        actor.process.kill()
    return actors


def slots(run: Launch) -> list[Slot]:
    """The places of learner and actors."""
    return [run.supervisor.learner, *(actor.slot for actor in run.supervisor.actors)]


def all_back(run: Launch) -> bool:
    """Tell whether the learner answers and everyone is registered with it."""
    status = run.supervisor.status
    return (
        status is not None
        and all(actor.registered for actor in run.supervisor.actors)
        and {actor.name for actor in status.actors} == {str(i) for i in range(ACTORS)}
        and all(actor.silent_ms < 5000 for actor in status.actors)
    )


def test_five_rounds_of_trouble_cost_no_episode_and_nobody_stays_away(launch, tmp_path):
    launch.until(lambda: all_back(launch) and launch.supervisor.status.update >= 2, 300)
    away = []
    for number in range(5):
        before = launch.supervisor.status.update
        starts = {slot.name: slot.restarts for slot in slots(launch)}
        struck = trouble(launch, number)
        started = time.monotonic()
        hang = launch.plan.settings.hang_after_s if number in (2, 3) else 0
        launch.until(
            lambda struck=struck, starts=starts: (
                all(slot.restarts > starts[slot.name] for slot in struck) and all_back(launch)
            ),
            300,
        )
        away.append(time.monotonic() - started - hang)
        launch.until(
            lambda before=before: launch.supervisor.status and launch.supervisor.status.update > before, 300
        )
    print("seconds until all were back, less those until a hang is noticed:", [round(s, 1) for s in away])
    launch.supervisor.ask_to_stop()
    outcome = launch.end()
    assert outcome.end == "stopped", outcome
    assert max(away) < BACK_S, away

    # Every update learned from its four numbers, and every number below the mark was used once or dropped.
    state = store.load(tmp_path / "output/checkpoints/last/training_state/orbax")
    rows = [json.loads(line) for line in (tmp_path / "output/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, int(state["updates"]) + 1))
    assert {row["train/episodes"] for row in rows} == {4}
    given_up = sum(row["dropped/given_up"] for row in rows)
    assert int(state["episodes"]) == 4 * len(rows) + given_up
    assert given_up == 0
    assert np.all([row["train/actor_learner_logprob_gap"] < 1e-3 for row in rows])
