"""A launch of the real learner and of stock actors, some of which are killed or stand still."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from forked import Command
from test_learner import free_port, write_config

from bridge.launch import facts, plan
from bridge.launch.supervisor import Supervisor

pytestmark = pytest.mark.e2e


class Launch:
    """``pirl-launch``, whose processes are forks."""

    def __init__(self, folder: Path, monkeypatch, *arguments: str) -> None:
        self.said: list[str] = []
        self.processes: list[tuple[str, Command]] = []

        def read(command, **_):
            log = folder / "facts.log"
            log.unlink(missing_ok=True)
            status = Command(command[2], command[3:], log).wait(120)
            return type(
                "Done", (), {"returncode": status, "stdout": log.read_text(), "stderr": log.read_text()}
            )

        def start(module, arguments, log, environment):
            self.processes.append((module, Command(module, list(arguments), log, **environment)))
            return self.processes[-1][1]

        with monkeypatch.context() as patch:
            patch.setattr(facts.subprocess, "run", read)
            self.plan = plan.prepare(arguments)
        self.supervisor = Supervisor(self.plan, self.said.append, start, poll_s=0.1)
        self.outcome = None

    def until(self, condition, timeout=120.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.said
            self.outcome = self.supervisor.step(time.monotonic())
            assert self.outcome is None or condition(), (self.outcome, self.said)
            time.sleep(0.1)

    def end(self):
        self.until(lambda: self.outcome is not None)
        self.supervisor.close()
        assert all(process.poll() is not None for _, process in self.processes)
        return self.outcome

    def actor(self, number: int) -> Command:
        return self.supervisor.actors[number].slot.process

    def close(self):
        for _, process in self.processes:
            process.kill()


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
