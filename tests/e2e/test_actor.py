"""LeRobot's own actor, started by its own command line, with the plugin."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_learner import FakeLearner
from forked import Command
from lerobot.policies.xvla import XVLAPolicy
from tiny import tiny_policy_config, write_run_config

from bridge.wire.record import RecordDims, unpack
from pirl_jax.rollout.seeds import episode_seed

pytestmark = pytest.mark.e2e

TESTS = Path(__file__).resolve().parents[1]
DIMS = RecordDims(n_action_steps=8, env_action_dim=4, num_latents=3, chunk_size=8, action_dim=4)


@pytest.fixture
def start_actor():
    processes = []

    def start(config, log, *overrides, plugin="bridge.plugin", **environment):
        command = [
            sys.executable,
            "-m",
            "lerobot.rl.actor",
            f"--config_path={config}",
            f"--env.discover_packages_path={plugin}",
            *overrides,
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        with open(log, "w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def weights(version, **changes):
    torch.manual_seed(version)
    state = XVLAPolicy(tiny_policy_config()).state_dict()
    head = {key: value for key, value in state.items() if key.startswith("model.transformer.")}
    return {"version": torch.tensor(version), "level": torch.tensor(0.1).double(), "policy": head | changes}


def records(episode):
    # unpack checks the row's own checksum: it left the policy and came here bit for bit.
    return [unpack(transition["action"].numpy(), dims=DIMS) for transition in episode]


def versions(episodes):
    return [{record.version for record in records(episode)} for episode in episodes]


def seed_of(transition):
    _, _, low, high, *_ = transition["complementary_info"]["discrete_penalty"].flatten().tolist()
    return int(low) + (int(high) << 16)


def test_the_stock_actor_collects_whole_chunks_and_follows_the_learner(tmp_path, start_actor):
    learner = FakeLearner()
    learner.push(weights(5))
    config = write_run_config(tmp_path, learner.port)
    log = tmp_path / "actor.log"
    probe = {
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "ACTOR_PROBE": str(tmp_path / "probe"),
    }
    actor = start_actor(config, log, "--env.actor_id=2", plugin="actor_probe", **probe)

    episodes = learner.wait_for_episodes(2, 300)
    learner.push(weights(6))
    episodes = learner.wait_for_episodes(len(episodes) + 3)
    assert versions(episodes)[:2] == [{5}, {5}]
    assert versions(episodes)[-1] == {6}

    # A push that does not fit is said, and waits for one that does.
    learner.push(weights(7, **{"model.transformer.nonsense": torch.zeros(2)}))
    deadline = time.monotonic() + 60
    while "Rejected a parameter push and kept version 6" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    learner.push(weights(8))
    episodes = learner.wait_for_episodes(len(learner.episodes) + 3)
    assert versions(episodes)[-1] == {8}

    # The learner restarts, as another run: the actor registers anew, and versions may begin again.
    learner.stop()
    time.sleep(1)
    successor = FakeLearner(learner.port, run=2)
    successor.push(weights(1))
    after = successor.wait_for_episodes(4)
    assert versions(after)[-1] == {1}

    actor.send_signal(signal.SIGTERM)
    assert actor.wait(30) == 0
    successor.stop()
    # LeRobot's actor switches TF32 on, in which the learner does not score.
    assert (tmp_path / "probe").read_text() == "(False, False) highest"

    # The one episode whose acknowledgement the old learner may have owed comes again under its id.
    ids = learner.message_ids + successor.message_ids
    episodes = list(dict(zip(ids, learner.episodes + successor.episodes, strict=True)).values())
    for run in (1, 2):
        played = [episode for episode in episodes if records(episode)[0].run == run]
        # Every number once, in order, at its seed.
        assert [records(episode)[0].number for episode in played] == list(range(len(played)))
        assert [seed_of(episode[0]) for episode in played] == [
            episode_seed(learner.seed, number) for number in range(len(played))
        ]
    assert successor.service.registration.name == "2"
    for episode in episodes:
        check_episode(episode)


def check_episode(episode):
    rows = records(episode)
    for i, transition in enumerate(episode):
        state, following = transition["state"], transition["next_state"]
        assert set(state) == set(following)
        assert state["observation.images.front"].dtype == torch.uint8
        assert state["observation.images.front"].shape == (1, 3, 64, 64)
        assert state["observation.language.tokens"].shape == (1, 10)
        assert not any(torch.isnan(value).any() for value in state.values())
        executed, success, _, _, _, _, *rewards = (
            transition["complementary_info"]["discrete_penalty"].flatten().tolist()
        )
        assert len(rewards) == executed <= 8
        assert sum(rewards) == transition["reward"]
        assert success in (0.0, 1.0)
        last = i == len(episode) - 1
        assert bool(transition["done"] or transition["truncated"]) == last
        if not last:
            for key, value in following.items():
                assert torch.equal(value, episode[i + 1]["state"][key])
            assert not np.array_equal(rows[i].latents[0], rows[i + 1].latents[0])


def test_a_taken_output_dir_stops_the_actor_with_a_clear_error(tmp_path):
    config = write_run_config(tmp_path, 1)
    (tmp_path / "output").mkdir()
    log = tmp_path / "actor.log"
    arguments = [f"--config_path={config}", "--env.discover_packages_path=bridge.plugin"]
    assert Command("lerobot.rl.actor", arguments, log).wait(120) != 0
    assert "already exists and resume is False" in log.read_text()
