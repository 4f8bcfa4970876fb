"""Evaluation with the stock policy, and its video."""

import os
import subprocess
import sys

os.environ.setdefault("MUJOCO_GL", "osmesa")

import imageio.v2 as imageio
import jax
import pytest
from lerobot.configs.default import DatasetConfig
from tiny import build_tokenizer, tiny_policy_config

from bridge.demo.evaluate import Evaluator, evaluate, record_video
from bridge.settings.sft_config import SFTConfig
from bridge.weights.export import export_pretrained, policy_config
from pirl_jax.xvla.init import init_params

SEEDS = range(6)


def export(folder, tokenizer, key):
    policy = tiny_policy_config(tokenizer_name=str(tokenizer))
    cfg = SFTConfig(dataset=DatasetConfig("test/demos"), policy=policy)
    export_pretrained(init_params(policy_config(policy), jax.random.key(key)), cfg, folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("policies")
    tokenizer = build_tokenizer(root / "tokenizer")
    return [export(root / name, tokenizer, key) for key, name in enumerate(("first", "second"))]


def test_an_evaluation_repeats_itself_whatever_was_evaluated_between(folders):
    with Evaluator(workers=0) as evaluator:
        first = evaluator(folders[0], SEEDS[:2])
        evaluator(folders[1], SEEDS[:2])
        again = evaluator(folders[0], SEEDS[:2])
    assert first.episodes == again.episodes
    assert [episode.seed for episode in first.episodes] == [0, 1]


@pytest.mark.slow
def test_workers_do_not_change_the_episodes(folders):
    inline, pooled = evaluate(folders[0], SEEDS, workers=0), evaluate(folders[0], SEEDS, workers=1)
    assert inline.episodes == pooled.episodes
    summary = pooled.summary()
    assert summary["n"] == len(SEEDS)
    assert summary["ci95"][0] <= summary["success"] <= summary["ci95"][1]


def test_images_stay_right_after_other_policies_and_videos(folders, tmp_path):
    from bridge.demo.record import environment

    env = environment(64)
    env.reset(seed=3)
    before = env.render()
    evaluate(folders[1], SEEDS[:1], workers=0)
    record_video(folders[0], SEEDS[:1], tmp_path / "one.mp4", columns=1, size=64)
    record_video(folders[1], SEEDS[:1], tmp_path / "two.mp4", columns=1, size=64)
    env.reset(seed=3)
    assert (env.render() == before).all()
    assert before.std() > 10


def test_a_video_shows_the_episodes_it_reports(folders, tmp_path):
    result = record_video(folders[0], SEEDS[:4], tmp_path / "mosaic.mp4", columns=2, size=64)
    assert [episode.seed for episode in result.episodes] == list(SEEDS[:4])
    frames = imageio.mimread(tmp_path / "mosaic.mp4", memtest=False)
    assert frames[0].shape == (128, 128, 3)
    assert len(frames) >= max(episode.length for episode in result.episodes)


def test_no_seeds_is_an_error(folders):
    with pytest.raises(ValueError, match="at least one seed"):
        evaluate(folders[0], [], workers=0)


def test_a_process_that_has_drawn_a_video_ends_without_a_word():
    code = """
from bridge.demo.evaluate import _camera
from bridge.demo.record import environment
env = environment(32)
env.reset(seed=0)
assert _camera(env, 64)().any()
print("the end")
"""
    environment = os.environ | {"MUJOCO_GL": "egl"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "the end")
    assert "EGLError" not in done.stderr
    assert "Traceback" not in done.stderr
