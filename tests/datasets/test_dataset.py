"""Supervised batches: equal to what LeRobot's own loader and tokenizer step give."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from lerobot.configs import NormalizationMode
from lerobot.configs.default import DatasetConfig
from lerobot.datasets import LeRobotDataset
from lerobot.policies.xvla import XVLAPolicy
from lerobot.processor import TokenizerProcessorStep
from lerobot.utils.constants import ACTION, OBS_STATE
from tiny import tiny_policy_config

from bridge.datasets.dataset import _decode, batches, frame_shapes, load_dataset, tokenize
from bridge.datasets.tokenizer import build_tokenizer
from bridge.demo.record import IMAGE_KEY
from bridge.settings.sft_config import SFTConfig
from bridge.weights.export import policy_config

TASKS = ["pick up the cube", "put the cube down"]
LENGTHS = (5, 11, 9)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "demos"
    features = {
        IMAGE_KEY: {"dtype": "image", "shape": (16, 16, 3), "names": ["height", "width", "channels"]},
        OBS_STATE: {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        ACTION: {"dtype": "float32", "shape": (4,), "names": ["a", "b", "c", "d"]},
    }
    dataset = LeRobotDataset.create("test/demos", fps=10, features=features, root=folder, use_videos=False)
    rng = np.random.default_rng(0)
    for episode, length in enumerate(LENGTHS):
        for _ in range(length):
            dataset.add_frame(
                {
                    IMAGE_KEY: rng.integers(0, 256, (16, 16, 3), np.uint8),
                    OBS_STATE: rng.standard_normal(3, np.float32),
                    ACTION: rng.standard_normal(4, np.float32),
                    "task": TASKS[episode % 2],
                }
            )
        dataset.save_episode()
    dataset.finalize()
    return folder


@pytest.fixture
def cfg(root, tmp_path):
    build_tokenizer(tmp_path / "tokenizer", TASKS)
    policy = tiny_policy_config(tokenizer_name=str(tmp_path / "tokenizer"))
    policy.input_features[IMAGE_KEY].shape = (3, 16, 16)
    return SFTConfig(dataset=DatasetConfig("test/demos", root=str(root)), policy=policy, batch_size=8)


def take(dataset, policy, count, **kwargs):
    return list(itertools.islice(batches(dataset, policy, 8, seed=3, **kwargs), count))


def equal(left, right):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(left, right, strict=True))


def test_batches_hold_what_lerobot_loads(cfg):
    dataset = load_dataset(cfg)
    step = TokenizerProcessorStep(
        tokenizer_name=cfg.policy.tokenizer_name,
        max_length=cfg.policy.tokenizer_max_length,
        padding="max_length",
    )
    by_image = {}
    for index in range(len(dataset)):
        item = dataset[index]
        by_image[(item[IMAGE_KEY] * 255).round().to(torch.uint8).numpy().tobytes()] = item
    seen, past_the_end = 0, False
    for batch in take(dataset, cfg.policy, 4):
        assert batch.images.shape == (8, 1, 3, 16, 16)
        assert batch.action.shape == (8, 8, 4)
        for row in range(8):
            item = by_image[batch.images[row, 0].tobytes()]
            np.testing.assert_array_equal(batch.action[row], item[ACTION])
            np.testing.assert_array_equal(batch.proprio[row], [*item[OBS_STATE], 0, 0])
            np.testing.assert_array_equal(
                batch.tokens[row], step._tokenize_text([item["task"]])["input_ids"][0]
            )
            seen += 1
            past_the_end |= bool(item["action_is_pad"].any())
    assert seen == 32
    assert past_the_end


def test_an_epoch_shows_every_frame_once(cfg):
    cfg.batch_size = 5
    dataset = load_dataset(cfg)
    images = [b.images for b in itertools.islice(batches(dataset, cfg.policy, 5, seed=0), len(dataset) // 5)]
    assert len({image.tobytes() for image in np.concatenate(images)}) == len(dataset) == sum(LENGTHS)


def test_the_order_depends_on_the_seed_and_continues_at_a_step(cfg):
    dataset = load_dataset(cfg)
    whole = take(dataset, cfg.policy, 9)
    assert all(
        equal(a, b) for a, b in zip(whole[5:], take(dataset, cfg.policy, 4, start_step=5), strict=True)
    )
    other = next(batches(dataset, cfg.policy, 8, seed=4))
    assert not equal(whole[0], other)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_dataset_too_large_for_the_cache_gives_the_same_batches(cfg, num_workers):
    dataset = load_dataset(cfg)
    cached = take(dataset, cfg.policy, 2)
    read = take(dataset, cfg.policy, 2, cache_bytes=0, num_workers=num_workers)
    assert all(equal(a, b) for a, b in zip(cached, read, strict=True))


def test_chosen_episodes_only(cfg):
    cfg.dataset.episodes = [1, 2]
    dataset = load_dataset(cfg)
    assert dataset.num_frames == 20
    assert equal(
        next(batches(dataset, cfg.policy, 8, seed=3)), take(dataset, cfg.policy, 1, cache_bytes=0)[0]
    )


def test_features_come_from_the_dataset_where_the_policy_has_none(cfg):
    cfg.policy.input_features = {}
    cfg.policy.output_features = {}
    load_dataset(cfg)
    assert set(cfg.policy.input_features) == {IMAGE_KEY, OBS_STATE}
    assert cfg.policy.output_features[ACTION].shape == (4,)


def test_tokens_have_one_length(cfg):
    assert tokenize(TASKS, cfg.policy).shape == (2, cfg.policy.tokenizer_max_length)


def test_what_is_not_supported_is_refused_by_name(cfg):
    cfg.policy.normalization_mapping["STATE"] = NormalizationMode.MEAN_STD
    with pytest.raises(ValueError, match="normalization_mapping"):
        load_dataset(cfg)
    cfg.dataset.streaming = True
    with pytest.raises(ValueError, match=r"dataset\.streaming"):
        load_dataset(cfg)


def test_sizes_are_those_of_the_frames_whatever_the_policy_announces(cfg):
    cfg.policy.input_features[IMAGE_KEY].shape = (3, 224, 224)
    dataset = load_dataset(cfg)
    in_memory = sum(LENGTHS) * 3 * 16 * 16  # 196 times less than announced
    (batch,) = take(dataset, cfg.policy, 1, cache_bytes=in_memory)
    assert batch.images.shape == (8, 1, 3, 16, 16)
    assert frame_shapes(dataset, [IMAGE_KEY]) == {IMAGE_KEY: (3, 16, 16)}


def test_cameras_of_different_sizes_are_named_though_the_policy_announces_one(cfg, monkeypatch):
    dataset = load_dataset(cfg)
    wrist = IMAGE_KEY.replace("front", "wrist")
    sizes = {IMAGE_KEY: (3, 16, 16), wrist: (3, 32, 16)}
    monkeypatch.setattr("bridge.datasets.dataset.frame_shapes", lambda dataset, keys: sizes)
    with pytest.raises(ValueError, match=r"one size; got .*\(3, 32, 16\)"):
        take(dataset, cfg.policy, 1)


def test_a_frame_of_another_size_is_named(cfg):
    dataset = load_dataset(cfg)
    with pytest.raises(ValueError, match=r"frame 0 of .* is \(3, 16, 16\) \(c, h, w\), but \(3, 8, 8\)"):
        _decode(dataset, IMAGE_KEY, (3, 8, 8))


def test_empty_cameras_are_counted_as_lerobot_train_counts_them(cfg):
    for features in ({}, dict(cfg.policy.input_features)):
        cfg.policy = dataclasses.replace(cfg.policy, input_features=dict(features), empty_cameras=1)
        load_dataset(cfg)
        ours = policy_config(cfg.policy).num_views
        lerobots = XVLAPolicy(copy.deepcopy(cfg.policy)).config.num_image_views
        assert (ours, lerobots) == (2, 2)


def test_a_camera_the_dataset_lacks_is_named(cfg):
    cfg.policy.input_features = {
        key.replace("front", "wrist"): feature for key, feature in cfg.policy.input_features.items()
    }
    with pytest.raises(ValueError, match=r"observation\.images\.wrist"):
        load_dataset(cfg)
