"""Learner and stock actors: who plays what, whose word counts, and what a run is a function of."""

import dataclasses
import json
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_reward import ENV_ID
from fake_actor import FakeActor
from forked import Command
from test_learner import feed, flatten, free_port, start, write_config

from bridge.wire.record import pack, unpack
from pirl_jax.trees import store

pytestmark = pytest.mark.e2e


def actor(folder: Path, name: str, config: Path, *flags: str, **environment: str) -> Command:
    of_actor = ["--env.discover_packages_path=bridge.plugin", f"--output_dir={folder / name}"]
    log = folder / f"{name}.log"
    return Command("lerobot.rl.actor", [f"--config_path={config}", *of_actor, *flags], log, **environment)


def train(folder: Path, config: Path, actors: int, steps: str) -> None:
    """Run a learner to its end with so many stock actors, which have one name."""
    with ExitStack() as processes:
        learner = start(folder / "log", f"--config_path={config}", steps, "--save_freq=0")
        processes.enter_context(learner)
        for i in range(actors):
            processes.enter_context(actor(folder, f"actor{i}", config))
        assert learner.wait(240) == 0, (folder / "log").read_text()[-2000:]


def run(folder: Path, actors: int, **settings) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:
    """Return the final state and the metrics of three updates."""
    config = write_config(folder, free_port(), **settings)
    train(folder, config, actors, "--steps=3")
    rows = [json.loads(line) for line in (folder / "output/metrics.jsonl").read_text().splitlines()]
    return flatten(store.load(folder / "output/checkpoints/last/training_state/orbax")), rows


@pytest.mark.slow
def test_without_staleness_a_run_is_a_function_of_its_seed_however_many_actors_play(tmp_path):
    settings = {
        "algorithm": {"rollout": {"max_staleness": 0}, "optimizer": {"lr": 1e-3}},
        "env": {"max_episode_steps": 16, "gym_id": ENV_ID},
    }
    one, two = (run(tmp_path / str(count), count, **settings) for count in (1, 2))
    assert one[0].keys() == two[0].keys()
    for name, leaf in one[0].items():
        np.testing.assert_array_equal(two[0][name], leaf, err_msg=name)
    assert int(one[0]["episodes"]) == 12
    for first, second in zip(one[1], two[1], strict=True):
        same = {
            name: value
            for name, value in first.items()
            if name.startswith(("train/", "dropped/")) and not name.endswith("_s")
        }
        assert same.items() <= second.items()
        assert same["train/policy_steps"] > 0
        assert "train/return" in same


def test_a_group_is_spread_over_the_actors(tmp_path):
    """Which process played which seed is in the environment's own record."""
    played = tmp_path / "played"
    config = write_config(
        tmp_path,
        free_port(),
        env={"gym_id": "coin_env:Coin-v0", "gym_kwargs": {"seconds": 0.05, "record": str(played)}},
        algorithm={
            "advantage": {"estimator": "group"},
            "critic": {"hidden_dims": [1024, 512, 256]},  # the default: there is none
            "rollout": {"group_size": 8, "episodes_per_update": 8, "max_staleness": 0},
        },
    )
    train(tmp_path, config, 2, "--steps=2")
    actors: dict[str, set[str]] = {}
    episodes: dict[str, int] = {}
    for line in played.read_text().splitlines():
        pid, seed = line.split()
        actors.setdefault(seed, set()).add(pid)
        episodes[seed] = episodes.get(seed, 0) + 1
    whole = [seed for seed, count in episodes.items() if count == 8]
    assert len(whole) >= 2
    assert max(episodes.values()) == 8
    assert any(len(actors[seed]) == 2 for seed in whole)


def test_an_actor_in_another_noise_mode_is_refused_before_it_plays(tmp_path):
    config = write_config(tmp_path, free_port())
    flags = ["--algorithm.noise.mode=flow_sde", "--algorithm.noise.level=0.5"]
    with (
        start(tmp_path / "log", f"--config_path={config}") as learner,
        actor(tmp_path, "other", config, *flags) as other,
    ):
        assert other.wait(120) == 1
        assert learner.poll() is None
    last = (tmp_path / "other.log").read_text().splitlines()[-1]
    assert last.startswith("error: the learner refused this actor: ")
    assert 'algorithm.noise.mode is "flow_sde" and the learner\'s is "terminal"' in last
    assert "Episode reward" not in (tmp_path / "other.log").read_text()


class Pretender(FakeActor):
    """Says that its actions were likelier than they were."""

    def play(self, assigned):
        honest = self.algorithm.select_action

        def select_action(batch):
            record = unpack(honest(batch).numpy())
            return torch.from_numpy(pack(dataclasses.replace(record, log_prob=record.log_prob + 5)))[None]

        self.algorithm.select_action = select_action
        try:
            return super().play(assigned)
        finally:
            self.algorithm.select_action = honest


def test_a_run_whose_episodes_are_mostly_rejected_ends_with_words_and_keeps_what_it_learned(tmp_path):
    config = write_config(tmp_path, free_port(), algorithm={"rollout": {"max_staleness": 0}})
    with start(tmp_path / "log", f"--config_path={config}", "--save_freq=100") as learner:
        with closing(FakeActor(config)) as honest:
            feed(honest, 1)
            honest.wait_for_version(2)
        with closing(Pretender(config)) as pretender:
            pretender.episodes(4)
            assert learner.wait(60) == 1, (tmp_path / "log").read_text()[-2000:]
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.startswith("error: 4 episodes were rejected (gap: 4) while 0 could be used. ")
    assert (tmp_path / "output/checkpoints/last").readlink() == Path("000001")
