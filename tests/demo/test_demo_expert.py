"""The scripted expert and the demonstrations it leaves."""

import os

os.environ.setdefault("MUJOCO_GL", "osmesa")

import numpy as np
import pytest
from lerobot.datasets import LeRobotDataset

from bridge.demo import expert
from bridge.demo.record import IMAGE_KEY, TRAIN_SEEDS, demonstrate, environment, record

CHUNK_SIZE = 8


@pytest.fixture(scope="module")
def demonstrations():
    return [demonstrate(TRAIN_SEEDS + seed, image_size=32) for seed in range(12)]


def test_the_expert_succeeds_within_the_demos_four_chunks(demonstrations):
    assert all(demonstration.success for demonstration in demonstrations)
    assert all(8 <= len(demonstration.actions) <= 4 * CHUNK_SIZE for demonstration in demonstrations)


def test_its_actions_are_admissible_and_smooth(demonstrations):
    actions = [demonstration.actions for demonstration in demonstrations]
    assert all(np.abs(chunk).max() <= 1 for chunk in actions)
    changes = np.concatenate([np.abs(np.diff(chunk[:, :3], axis=0)) for chunk in actions])
    assert changes.mean() < 0.2


def test_the_same_seed_gives_the_same_demonstration(demonstrations):
    again = demonstrate(TRAIN_SEEDS, image_size=32)
    np.testing.assert_array_equal(again.actions, demonstrations[0].actions)
    np.testing.assert_array_equal(again.images, demonstrations[0].images)


def test_it_goes_above_the_cube_then_down_then_closes_then_lifts():
    cube = np.array([0.4, 0.1, 0.02])
    far = expert.expert_action(np.array([0.5, 0.0, 0.075]), 0.0, cube)
    assert far[0] < 0 < far[1]
    assert far[2] == pytest.approx(0)
    above = expert.expert_action(np.array([0.4, 0.1, 0.075]), 0.0, cube)
    assert above[2] == -1
    around = expert.expert_action(np.array([0.4, 0.1, 0.02]), 0.0, cube)
    assert around[3] > 0 >= around[2]
    held = expert.expert_action(np.array([0.4, 0.1, 0.02]), 1.0, cube)
    assert held[2] == 1


def test_an_expert_that_aims_beside_the_cube_goes_there_and_succeeds_less_often():
    env = environment(32)
    env.reset(seed=TRAIN_SEEDS)
    beside = expert.act(env, (0.0, -0.05))
    moved = expert.expert_action(env.tcp_pos, env.gripper_command, env.block_pos - (0, 0.05, 0))
    np.testing.assert_array_equal(beside, moved)
    assert not np.array_equal(beside, expert.act(env))
    tried = [demonstrate(TRAIN_SEEDS + seed, 32, (0.0, -0.04)).success for seed in range(4)]
    assert not any(tried)


@pytest.mark.parametrize("workers", [0, 1])
def test_recording_writes_a_dataset_that_lerobot_opens(tmp_path, demonstrations, workers):
    record(tmp_path / "demos", episodes=2, image_size=32, workers=workers)
    dataset = LeRobotDataset("pirl/panda_pick_cube", root=tmp_path / "demos")
    assert dataset.num_episodes == 2
    assert dataset.num_frames == sum(len(demonstration.actions) for demonstration in demonstrations[:2])
    first = dataset[0]
    np.testing.assert_array_equal(first["action"], demonstrations[0].actions[0])
    image = (first[IMAGE_KEY] * 255).round().to(int).permute(1, 2, 0)
    np.testing.assert_array_equal(image, demonstrations[0].images[0])


def test_recording_leaves_an_existing_folder_alone(tmp_path):
    with pytest.raises(ValueError, match="already exists"):
        record(tmp_path, episodes=1)
