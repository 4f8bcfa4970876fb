"""A policy server in the learner's process, and stock actors without a network: a whole run of them."""

import json
import re

import pytest
from dense_reward import ENV_ID
from forked import Command
from held_env import ENV_ID as HELD_ENV_ID
from quick import quick
from test_learner import free_port, start, wait_for, write_config

from pirl_jax.likelihood.modes import MODES
from pirl_jax.trees import store

pytestmark = pytest.mark.e2e

LEVELS = {"terminal": 0.1, "flow_sde": 0.5, "flow_cps": 0.5, "flow_noise": 0.1}
GAP = 1e-3
"""Nats a chunk, in bfloat16 too: actor and learner have one network and one encoding of each observation."""


def actor(folder, name, config, *flags):
    of_actor = ["--env.discover_packages_path=bridge.plugin", f"--output_dir={folder / name}"]
    return Command("lerobot.rl.actor", [f"--config_path={config}", *flags, *of_actor], folder / f"{name}.log")


def metrics(folder):
    return [json.loads(line) for line in (folder / "output/metrics.jsonl").read_text().splitlines()]


def served(**algorithm):
    return {"inference": "served", "serve": {"max_batch": 2}, **algorithm}


@pytest.mark.parametrize("mode", quick(MODES, "terminal"))
def test_what_the_server_draws_is_what_the_learner_scores(tmp_path, mode):
    noise = {"mode": mode, "level": LEVELS[mode], "final_level": LEVELS[mode] / 2, "decay_updates": 1}
    settings = served(
        noise=noise,
        push={"dtype": "bfloat16"},
        optimizer={"lr": 1e-5},
        rollout={"episodes_per_update": 4, "max_staleness": 1},
    )
    config = write_config(
        tmp_path, free_port(), algorithm=settings, env={"max_episode_steps": 24, "gym_id": ENV_ID}
    )
    flags = [f"--policy.path={tmp_path / 'base'}", "--policy.dtype=bfloat16"]
    with (
        start(
            tmp_path / "learner.log", f"--config_path={config}", *flags, "--steps=2", "--save_freq=0"
        ) as learner,
        actor(tmp_path, "actor0", config, *flags),
        actor(tmp_path, "actor1", config, *flags),
    ):
        assert learner.wait(240) == 0, (tmp_path / "learner.log").read_text()[-2000:]
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == [1, 2]
    gaps = [row["train/actor_learner_logprob_gap"] for row in rows]
    print(f"largest difference {max(gaps):.3g} nats a chunk")
    assert max(gaps) < GAP
    assert min(row["train/policy_steps"] for row in rows) > 0
    assert [row["train/encoder_calls"] for row in rows] == [1, 1]  # the server's are counted
    assert "no weights are loaded here" in (tmp_path / "actor0.log").read_text()


def test_a_learner_that_is_killed_and_resumed_finds_its_light_actors_again(tmp_path):
    """They wait in the middle of an episode, play it to its end for nothing, and go on."""
    hold = tmp_path / "hold"
    config = write_config(
        tmp_path,
        free_port(),
        algorithm=served(rollout={"episodes_per_update": 4, "max_staleness": 1}),
        env={"gym_id": HELD_ENV_ID, "gym_kwargs": {"hold": str(hold)}},
    )
    last = tmp_path / "output/checkpoints/last"

    def logs():
        return [(tmp_path / f"actor{i}.log").read_text() for i in range(2)]

    with actor(tmp_path, "actor0", config), actor(tmp_path, "actor1", config):
        with start(tmp_path / "log", f"--config_path={config}", "--steps=4", "--save_freq=1") as learner:
            wait_for(lambda: last.is_symlink(), 120)
            hold.touch()
            wait_for(lambda: len(list(tmp_path.glob("hold.*"))) == 2)  # each in its first chunk of several
            learner.kill()
            learner.wait()
        hold.unlink()
        wait_for(lambda: all(re.search("Policy server: .* Trying again", log) for log in logs()))
        resume = [
            f"--config_path={last / 'pretrained_model/train_config.json'}",
            "--resume=true",
            "--steps=4",
        ]
        with start(tmp_path / "log", *resume) as learner:
            assert learner.wait(240) == 0, (tmp_path / "log").read_text()[-2000:]
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert max(row["train/actor_learner_logprob_gap"] for row in rows) < GAP
    assert all("Policy server: answered again after" in log for log in logs())


@pytest.mark.slow
def test_servers_of_their_own_act_for_groups_and_may_be_killed_as_actors_may(tmp_path):
    """Two replicas and two actors: one of each dies, one of each comes back, and nothing counts twice."""
    port, played = free_port(), tmp_path / "played"
    config = write_config(
        tmp_path,
        free_port(),
        env={"gym_id": "coin_env:Coin-v0", "gym_kwargs": {"seconds": 0.02, "record": str(played)}},
        algorithm={
            "inference": "served",
            "serve": {"mode": "process", "replicas": 2, "port": port, "max_batch": 2},
            "advantage": {"estimator": "group"},
            "critic": {"hidden_dims": [1024, 512, 256]},  # the default: there is none
            "rollout": {"group_size": 4, "episodes_per_update": 8, "max_staleness": 1},
        },
    )

    def replica(number):
        log = tmp_path / f"server{number}.log"
        return Command("pirl_jax.serve", [f"--config_path={config}", f"--replica={number}"], log)

    def updates():
        return len(metrics(tmp_path)) if (tmp_path / "output/metrics.jsonl").exists() else 0

    with (
        start(tmp_path / "log", f"--config_path={config}", "--steps=6", "--save_freq=0") as learner,
        replica(0) as first,
        replica(1) as second,
        actor(tmp_path, "actor0", config),
        actor(tmp_path, "actor1", config) as mortal,
    ):
        wait_for(lambda: updates() >= 1, 180)
        first.kill()
        mortal.kill()
        before = updates()
        wait_for(lambda: updates() > before, 120)  # all that is left works for all that is left
        with replica(0), actor(tmp_path, "actor2", config):
            second.kill()
            assert learner.wait(240) == 0, (tmp_path / "log").read_text()[-2000:]
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert max(row["train/actor_learner_logprob_gap"] for row in rows) < GAP
    assert rows[-1]["dropped/unknown_version"] == 0
    assert "actor/dropped/unassigned" not in rows[-1]
    # Every number is settled once: learned from, or dropped in its turn.
    dropped = ("given_up", "broken_group", "uniform_group")
    settled = sum(row["train/episodes"] + sum(row[f"dropped/{why}"] for why in dropped) for row in rows)
    state = store.load(tmp_path / "output/checkpoints/last/training_state/orbax")
    assert int(state["episodes"]) == settled
