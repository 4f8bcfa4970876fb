"""A run that evaluates while it trains: stock actors, what they play, and what is left of it."""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from test_assignment import actor
from test_learner import flatten, free_port, start, wait_for, write_config

from pirl_jax.rollout.evaluation import Evaluation, spread
from pirl_jax.rollout.seeds import TRAINING_SEEDS
from pirl_jax.run_folder.layout import read_about
from pirl_jax.run_folder.manifest import damage
from pirl_jax.trees import store

pytestmark = pytest.mark.e2e

N = 5
EVALUATING = ("--env_eval_freq=2", f"--eval.n_episodes={N}")
_FIRST = Evaluation(0, 1, 7, spread(N, 1))
SEEDS = [_FIRST.draws(number)[0] for number in _FIRST.numbers]
"""Of each evaluation's episodes, with the seed of ``tiny``'s run."""


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "output/metrics.jsonl").read_text().splitlines()]


def evaluations(rows: list[dict]) -> list[dict]:
    return [row for row in rows if "eval/n_episodes" in row]


def updates(rows: list[dict]) -> list[dict]:
    return [row for row in rows if "eval/n_episodes" not in row]


def run(folder: Path, *flags: str, actors: int = 2, steps: int = 4, **settings) -> list[dict]:
    """Run a learner to its end with stock actors; return its metrics."""
    config = write_config(folder, free_port(), **settings)
    with ExitStack() as processes:
        learner = start(folder / "log", f"--config_path={config}", f"--steps={steps}", *flags)
        processes.enter_context(learner)
        wait_for(lambda: "waiting for actors" in (folder / "log").read_text(), 300)
        for i in range(actors):
            processes.enter_context(actor(folder, f"actor{i}", config, *flags))
        assert learner.wait(400) == 0, (folder / "log").read_text()[-2000:]
    return rows_of(folder)


def test_training_is_the_same_bit_for_bit_and_what_is_evaluated_is_held_out(tmp_path):
    """Of synchronous learning, where a run is a function of its seed: the same states, updates, episodes."""

    def settings(name):
        return {
            "algorithm": {"rollout": {"max_staleness": 0}, "optimizer": {"lr": 1e-3}},
            "env": {"gym_id": "coin_env:Coin-v0", "gym_kwargs": {"record": str(tmp_path / name)}},
        }

    plain = run(tmp_path / "plain", "--save_freq=0", **settings("unwatched"))
    watched = run(tmp_path / "watched", "--save_freq=0", *EVALUATING, **settings("played"))
    states = [
        flatten(store.load(tmp_path / name / "output/checkpoints/last/training_state/orbax"))
        for name in ("plain", "watched")
    ]
    for name, leaf in states[0].items():
        np.testing.assert_array_equal(states[1][name], leaf, err_msg=name)
    for before, after in zip(plain, updates(watched), strict=True):
        same = {
            name: value
            for name, value in before.items()
            if name.startswith(("train/", "dropped/")) and not name.endswith("_s")
        }
        assert same.items() <= after.items()
    found = evaluations(watched)
    assert [row["step"] for row in found] == [0, 2, 4]
    assert [row["step"] for row in watched] == [0, 1, 2, 2, 3, 4, 4]
    for row in found:
        assert row["eval/n_episodes"] == N
        assert row["eval/version_lag"] == row["eval/given_up"] == 0
        assert row["eval/interval_low"] <= row["eval/pc_success"] <= row["eval/interval_high"]
        successes = row["eval/pc_success"] * N / 100
        assert successes == pytest.approx(round(successes))
    played = Counter(int(line.split()[1]) for line in (tmp_path / "played").open())
    assert {seed: count for seed, count in played.items() if seed < TRAINING_SEEDS} == dict.fromkeys(SEEDS, 3)


@pytest.mark.slow
@pytest.mark.parametrize("inference", ["local", "served"])
def test_with_updates_ahead_an_evaluation_is_still_of_one_version(tmp_path, inference):
    """Whoever acts; and its picture, its place on the console and its score of the checkpoint are there."""
    served = {"inference": "served", "serve": {"max_batch": 2}} if inference == "served" else {}
    algorithm = {**served, "rollout": {"episodes_per_update": 4, "max_staleness": 2}}
    env = {"gym_id": "coin_env:Coin-v0", "gym_kwargs": {"seconds": 0.05}}
    rows = run(tmp_path, "--save_freq=1", *EVALUATING, algorithm=algorithm, env=env)
    found = evaluations(rows)
    assert [row["step"] for row in found] == [0, 2, 4]
    assert all(row["eval/n_episodes"] == N for row in found)
    assert all(row["eval/version_lag"] == 0 for row in found)
    assert [row["train/episodes"] for row in updates(rows)] == [4] * 4
    if inference == "served":  # what is evaluated is kept nowhere, and nothing else is encoded again
        assert [row["train/encoder_calls"] for row in updates(rows)] == [1] * 4
        assert updates(rows)[-1]["serve/evicted"] == 0
    checkpoints = tmp_path / "output/checkpoints"
    about = {step: read_about(checkpoints / f"{step:06d}") for step in (3, 4)}
    assert "pc_success" not in about[3]
    assert about[4]["pc_success"] == found[-1]["eval/pc_success"]
    assert damage((checkpoints / "last").resolve()) is None
    best = max(found[1:], key=lambda row: (row["eval/pc_success"], row["step"]))
    assert (checkpoints / "best").readlink() == Path(f"{best['step']:06d}")
    assert imageio.imread(tmp_path / "output/learning_curve.png").std() > 5
    log = (tmp_path / "log").read_text()
    assert "update 0 is evaluated: 5 episodes without noise" in log
    assert f"update 4 | pc_success {found[-1]['eval/pc_success']:.3g} | interval_low" in log


@pytest.mark.slow
def test_an_evaluation_that_a_kill_meets_is_made_again_and_counts_once(tmp_path):
    """The learner dies while update 2 is evaluated, and one of its actors with it; what is there goes on."""
    played = tmp_path / "played"
    config = write_config(
        tmp_path,
        free_port(),
        env={"gym_id": "coin_env:Coin-v0", "gym_kwargs": {"seconds": 0.1, "record": str(played)}},
        algorithm={"rollout": {"episodes_per_update": 4, "max_staleness": 1}},
    )
    last = tmp_path / "output/checkpoints/last"
    flags = ("--steps=4", "--save_freq=1", *EVALUATING)
    with ExitStack() as processes:
        with start(tmp_path / "log", f"--config_path={config}", *flags) as learner:
            wait_for(lambda: "waiting for actors" in (tmp_path / "log").read_text(), 300)
            _, mortal = (
                processes.enter_context(actor(tmp_path, f"actor{i}", config, *flags)) for i in range(2)
            )
            wait_for(lambda: last.is_symlink() and last.readlink() == Path("000002"), 400)
            learner.kill()
            learner.wait()
            mortal.kill()
        before = evaluations(rows_of(tmp_path))
        resume = [f"--config_path={last / 'pretrained_model/train_config.json'}", "--resume=true"]
        with start(tmp_path / "log2", *resume, *flags) as learner:
            assert learner.wait(400) == 0, (tmp_path / "log2").read_text()[-2000:]
    rows = rows_of(tmp_path)
    assert [row["step"] for row in updates(rows)] == [1, 2, 3, 4]
    found = evaluations(rows)
    assert [row["step"] for row in found] == [0, 2, 4]
    assert found[0] == before[0]
    assert [row["eval/n_episodes"] for row in found] == [N] * 3
    assert ("update 2 is evaluated" in (tmp_path / "log2").read_text()) == (len(before) == 1)
    scores = {row["step"]: row["eval/pc_success"] for row in found}
    assert read_about(last)["pc_success"] == scores[4]
    counts = Counter(int(line.split()[1]) for line in played.read_text().splitlines())
    assert set(SEEDS) <= counts.keys()
