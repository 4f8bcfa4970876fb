"""A launch of the real learner and of stock actors, some of which are killed or stand still."""

import json
import os
import signal

import pytest
from real_launch import Launch
from test_learner import free_port, write_config

pytestmark = pytest.mark.e2e


@pytest.fixture
def launch(tmp_path, monkeypatch):
    launches = []

    def start(*arguments):
        launches.append(Launch(tmp_path, monkeypatch, *arguments))
        return launches[-1]

    yield start
    for each in launches:
        each.close()


def test_a_run_outlives_its_processes_is_stopped_and_goes_on(tmp_path, launch):
    config = write_config(
        tmp_path,
        free_port(),
        env={"gym_id": "coin_env:Coin-v0", "gym_kwargs": {"seconds": 0.05}},
        algorithm={
            "rollout": {"max_staleness": 0},  # so that the run waits for whoever stands still
            "launch": {"actors": 2, "backoff_s": 0.1, "hang_after_s": 12.0},
        },
    )
    run = launch(f"--config_path={config}", "--steps=100", "--resume=auto")
    first, second = run.supervisor.actors
    run.until(lambda: first.episodes and second.episodes)
    assert run.supervisor.status.awaited == 4
    assert {actor.name for actor in run.supervisor.status.actors} == {"0", "1"}

    # One is killed, one stands still, and then the learner is killed too.
    run.actor(0).kill()
    run.until(lambda: first.slot.restarts == 1 and first.registered)
    os.kill(run.actor(1).pid, signal.SIGSTOP)
    run.until(lambda: second.slot.restarts == 1 and second.registered)
    assert any(line.startswith("actor 1 was not heard of for ") for line in run.said)
    rows = tmp_path / "output/metrics.jsonl"
    run.until(lambda: (tmp_path / "output/checkpoints/last").exists())
    run.supervisor.learner.process.kill()
    run.until(lambda: run.supervisor.learner.restarts == 1 and run.supervisor.status is not None)
    run.until(lambda: run.supervisor.status and run.supervisor.status.version)  # it listens before it says
    done = run.supervisor.status.update
    assert done >= 1

    # The actors have waited for it, and go on playing.
    run.until(lambda: run.supervisor.status and run.supervisor.status.update > done)
    assert (first.slot.restarts, second.slot.restarts) == (1, 1)
    run.supervisor.ask_to_stop()
    outcome = run.end()
    assert outcome.end == "stopped", outcome
    saved = int(outcome.line.removeprefix("stopped: update ").partition(" ")[0])
    assert 1 < saved < 100
    assert outcome.line.endswith(f"--steps=100 --output_dir={tmp_path}/output --resume=auto")

    resumed = launch(f"--config_path={config}", f"--steps={saved + 2}", "--resume=auto")
    outcome = resumed.end()
    assert (outcome.end, resumed.supervisor.learner.restarts) == ("finished", 0)
    assert [json.loads(line)["step"] for line in rows.read_text().splitlines()] == list(range(1, saved + 3))
    assert (tmp_path / "output/checkpoints/last/pretrained_model/model.safetensors").exists()


def test_actors_that_are_refused_end_the_launch_with_the_learners_word(tmp_path, launch):
    config = write_config(tmp_path, free_port())
    run = launch(f"--config_path={config}", "--actors=1")
    actor = run.supervisor.actors[0]
    actor._arguments = (*actor._arguments, "--algorithm.noise.mode=flow_sde", "--algorithm.noise.level=0.5")
    outcome = run.end()
    assert outcome.end == "failed"
    assert "the learner refused this actor: The actor's algorithm.noise." in outcome.line
    assert [module for module, _ in run.processes].count("lerobot.rl.actor") == 1
