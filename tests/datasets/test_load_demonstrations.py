"""The dataset of a run's config as demonstrations: right frames, and a clear word where it does not fit."""

import dataclasses
import json

import numpy as np
import pytest
from lerobot.datasets import LeRobotDataset
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from lerobot.utils.constants import ACTION, OBS_STATE
from tiny import write_dataset, write_run_config

import bridge.plugin
from bridge.datasets.demonstrations import load_demonstrations
from bridge.settings.learner_config import episode_spec
from bridge.weights.export import policy_config

bridge.plugin.register()


def config_of(folder, dataset, **overrides):
    path = write_run_config(folder, 50051, dataset=dataset, **overrides)
    values = json.loads(path.read_text())
    values["algorithm"]["demonstrations"] = {"coef": 1.0}
    path.write_text(json.dumps(values))
    cfg = TrainRLServerPipelineConfig.from_pretrained(path)
    cfg.validate()
    return cfg


def load(cfg, count, **sizes):
    config = policy_config(cfg.policy)
    spec = dataclasses.replace(episode_spec(cfg.policy, config, cfg.algorithm.noise, 8, cfg.env), **sizes)
    return load_demonstrations(cfg, config, spec, count)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("demonstrations") / "dataset")


@pytest.mark.parametrize(("count", "expected"), [(7, 7), (24, 24), (1000, 24)])
def test_frames_are_a_subset_without_repetitions_with_the_chunks_that_follow(
    dataset, tmp_path, count, expected
):
    cfg = config_of(tmp_path, dataset, env={"domain_id": 1})
    before = repr(cfg.policy)
    frames = load(cfg, count)
    assert repr(cfg.policy) == before
    assert frames.images.shape == (expected, 1, 3, 64, 64)
    assert frames.action.shape == (expected, 8, 4)
    # The dataset has no domains: they are in the environment's.
    np.testing.assert_array_equal(frames.domain_id, np.ones(expected))
    recorded = LeRobotDataset(dataset["repo_id"], root=dataset["root"]).hf_dataset.with_format("numpy")
    states, actions, episode = (np.stack(recorded[:][key]) for key in (OBS_STATE, ACTION, "episode_index"))
    rows = [int(np.flatnonzero((states == state).all(1))[0]) for state in frames.proprio]
    assert len(set(rows)) == expected
    for row, chunk in zip(rows, frames.action):
        last = np.flatnonzero(episode == episode[row])[-1]
        np.testing.assert_array_equal(chunk, actions[np.minimum(row + np.arange(8), last)])


def test_the_seed_decides_the_subset(dataset, tmp_path):
    cfg = config_of(tmp_path, dataset)
    first, again = load(cfg, 7), load(cfg, 7)
    cfg.seed += 1
    other = load(cfg, 7)
    np.testing.assert_array_equal(first.proprio, again.proprio)
    assert not np.array_equal(first.proprio, other.proprio)


def test_a_dataset_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cfg = config_of(tmp_path, {"repo_id": "test/absent", "root": str(tmp_path / "absent")})
    with pytest.raises(
        ValueError, match=r"demonstrations\.coef=1\.0 needs demonstrations.*test/absent.*dataset\.root"
    ):
        load(cfg, 4)


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        ({"action_dim": 7}, "numbers in an action: 7 in the dataset, 4 here"),
        ({"state_dim": 8}, "numbers in a state: 8 in the dataset, 5 here"),
        ({"image_size": 32}, r"image shape \(c, h, w\): \(3, 32, 32\) in the dataset, \(3, 64, 64\) here"),
    ],
)
def test_a_dataset_of_another_robot_is_refused(tmp_path, recorded, message):
    dataset = write_dataset(tmp_path / "dataset", length=2, **recorded)
    with pytest.raises(ValueError, match=message):
        load(config_of(tmp_path, dataset), 4)


def test_other_cameras_are_refused(dataset, tmp_path):
    cfg = config_of(tmp_path, dataset)
    keys = ("observation.images.front", "observation.images.wrist")
    with pytest.raises(ValueError, match=r"cameras: .*front.* in the dataset, .*wrist.* here"):
        load(cfg, 4, image_keys=keys)


def test_what_the_loader_cannot_do_is_refused_by_name(dataset, tmp_path):
    cfg = config_of(tmp_path, dataset | {"streaming": True})
    with pytest.raises(ValueError, match=r"dataset\.streaming=True is not supported"):
        load(cfg, 4)
