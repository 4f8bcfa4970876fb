"""A dataset that cannot be learned from ends in one line that names it and the way out."""

import json

import numpy as np
import pytest
from lerobot.configs.default import DatasetConfig
from lerobot.utils.constants import ACTION
from tiny import IMAGE_KEY, build_tokenizer, tiny_policy_config, write_dataset

from bridge.datasets import dataset as loader
from bridge.datasets.dataset import batches
from bridge.datasets.opening import open_dataset
from bridge.datasets.unfinished import recording
from bridge.settings.sft_config import SFTConfig


@pytest.fixture
def config(tmp_path):
    return SFTConfig(DatasetConfig(**write_dataset(tmp_path / "data")), policy=tiny_policy_config())


def change(folder, name, edit):
    file = folder / "data" / "meta" / name
    values = json.loads(file.read_text())
    edit(values)
    file.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda info: info.update(codebase_version="v2.1"),
            "is of format v2.1, and LeRobot reads v3.x. Convert it: python -m lerobot.scripts.convert",
        ),
        (
            lambda info: info["features"][IMAGE_KEY].update(names=None),
            f"does not say in which order {IMAGE_KEY} has height, width and channels",
        ),
    ],
)
def test_a_dataset_of_another_format_is_refused_with_the_way_out(config, tmp_path, edit, message):
    change(tmp_path, "info.json", edit)
    with pytest.raises(ValueError, match=message) as error:
        open_dataset(config)
    assert "\n" not in str(error.value)


def test_a_wrong_folder_is_not_looked_for_on_the_hub(config, tmp_path, monkeypatch):
    monkeypatch.setattr("bridge.datasets.opening.make_dataset", lambda cfg: pytest.fail("it was"))
    config.dataset.root = str(tmp_path)
    with pytest.raises(
        ValueError, match=r"is no LeRobotDataset: there is no .*meta/info.json. Give the folder"
    ):
        open_dataset(config)


def test_one_whose_recording_was_stopped_is_not_taken_for_whole(config, tmp_path):
    recording(tmp_path / "data").touch()
    with pytest.raises(
        ValueError, match=r"is not whole: its recording is under way or was stopped. Its command"
    ):
        open_dataset(config)
    recording(tmp_path / "data").unlink()
    assert open_dataset(config).num_frames == 24


def test_actions_of_which_the_mode_means_other_numbers_are_refused(config):
    config.policy.action_mode = "ee6d"
    with pytest.raises(ValueError, match=r"has \d numbers in an action, .*=ee6d .* of 20"):
        loader.load_dataset(config)


def test_a_damaged_file_is_named_with_its_dataset_in_one_line(config, tmp_path):
    file = next((tmp_path / "data" / "data").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"dataset.root=.* cannot be opened \(") as error:
        open_dataset(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lost", ["one", "all"])
def test_statistics_of_images_are_not_needed(config, tmp_path, lost):
    if lost == "all":
        (tmp_path / "data" / "meta" / "stats.json").unlink()
    else:
        change(tmp_path, "stats.json", lambda stats: stats.pop(IMAGE_KEY))
    assert open_dataset(config).num_frames == 24
    assert config.dataset.use_imagenet_stats  # the config is left as it is


@pytest.mark.parametrize("cache", [loader.CACHE_BYTES, 0], ids=["in memory", "read"])
def test_actions_of_one_channel_have_an_axis_for_it(tmp_path, cache):
    """LeRobot hands a feature of one number on as a number."""
    section = write_dataset(tmp_path / "data", action_dim=1)
    policy = tiny_policy_config(tokenizer_name=str(build_tokenizer(tmp_path / "tokenizer")), max_action_dim=1)
    dataset = loader.load_dataset(SFTConfig(DatasetConfig(**section), policy=policy))
    batch = next(batches(dataset, policy, 4, 0, cache_bytes=cache))
    assert batch.action.shape == (4, policy.chunk_size, 1)
    row = dataset.hf_dataset.with_format("numpy")[ACTION]
    assert np.isin(batch.action, np.asarray(row)).all()
