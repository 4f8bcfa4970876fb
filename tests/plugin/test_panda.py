"""Promises of ``pirl/PandaPickCube-v0``."""

import gymnasium as gym
import numpy as np
import pytest

from bridge.plugin.panda import ENV_ID, PandaPickCube, make_panda_pick_cube

# isort: split
from gym_hil.controllers import opspace
from gym_hil.envs import PandaPickCubeGymEnv


@pytest.fixture(scope="module")
def env():
    env = make_panda_pick_cube()
    yield env
    env.close()


def test_a_seed_fixes_the_cube_and_leaves_the_global_generator_alone(env):
    np.random.seed(5)
    expected = np.random.uniform(size=3)
    np.random.seed(5)
    env.reset(seed=11)
    first = env.block_pos
    np.testing.assert_array_equal(np.random.uniform(size=3), expected)
    env.reset(seed=12)
    assert not np.allclose(env.block_pos, first)
    env.reset(seed=11)
    np.testing.assert_array_equal(env.block_pos, first)


def test_observations_have_the_declared_form_and_size(env):
    observation, info = env.reset(seed=0)
    assert observation["pixels"]["front"].shape == (64, 64, 3)
    assert observation["pixels"]["front"].dtype == np.uint8
    assert observation["agent_pos"].dtype == np.float32
    assert np.abs(observation["agent_pos"]).max() < 2
    assert info == {"is_success": False}


def test_the_cube_is_in_the_picture_wherever_it_starts(env):
    for seed in range(20):
        image = env.reset(seed=seed)[0]["pixels"]["front"].astype(int)
        pink = (image[..., 0] > image[..., 1] + 40) & (image[..., 2] > image[..., 1] + 40)
        assert pink.any(), f"no pink pixel with the cube at {env.block_pos}"


def test_images_are_drawn_only_when_asked_for(env):
    env.reset(seed=0)
    env.set_rendering(False)
    observation, *_ = env.step(np.zeros(4))
    assert "pixels" not in observation
    np.testing.assert_array_equal(env.observe()["agent_pos"], observation["agent_pos"])
    env.set_rendering(True)
    assert "pixels" in env.step(np.zeros(4))[0]


def test_skipped_images_do_not_change_the_simulation(env):
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 4))

    def final(drawn):
        env.reset(seed=3)
        env.set_rendering(drawn)
        for action in actions:
            env.step(action)
        env.set_rendering(True)
        return env.observe()

    np.testing.assert_array_equal(final(True)["pixels"]["front"], final(False)["pixels"]["front"])
    np.testing.assert_array_equal(final(True)["agent_pos"], final(False)["agent_pos"])


def test_the_fast_controller_gives_the_stock_torques(env):
    generator = np.random.default_rng(1)
    env.set_rendering(False)
    for seed in range(3):
        env.reset(seed=seed)
        for _ in range(10):
            env.step(generator.uniform(-1, 1, 4))
            target, orientation = env._data.mocap_pos[0], env._data.mocap_quat[0]
            expected = opspace(
                model=env._model,
                data=env._data,
                site_id=env._pinch_site_id,
                dof_ids=env._panda_dof_ids,
                pos=target,
                ori=orientation,
                joint=env._home_position,
            )
            got = env._controller.torques(target, orientation)
            assert np.abs(got - expected).max() <= 1e-11 * np.abs(expected).max()
    env.set_rendering(True)


def test_an_action_moves_the_arm_as_the_stock_environment_does(env):
    def tool(cls):
        env.reset(seed=4)
        generator = np.random.default_rng(2)
        for _ in range(5):
            cls.apply_action(env, np.r_[generator.uniform(-0.02, 0.02, 3), 0, 0, 0, 0.3])
        return env.tcp_pos

    np.testing.assert_allclose(tool(PandaPickCube), tool(PandaPickCubeGymEnv), atol=1e-9)


def test_positive_gripper_actions_close_and_large_actions_are_clipped(env):
    env.reset(seed=0)
    env.step(np.asarray([0, 0, 0, 9.0]))
    assert env.gripper_command == 1.0
    start = env.target_pos
    env.step(np.asarray([40.0, 0, 0, 0]))
    np.testing.assert_allclose(env.target_pos - start, [0.025, 0, 0], atol=1e-12)


def test_lifting_the_cube_ends_the_episode_with_reward_one(env):
    env.reset(seed=0)
    env._data.joint("block").qpos[2] += 0.3
    _, reward, terminated, truncated, info = env.step(np.zeros(4))
    assert (reward, terminated, truncated, info["is_success"]) == (1.0, True, False, True)


def test_pushing_the_cube_off_its_area_ends_the_episode_without_reward(env):
    env.reset(seed=0)
    env._data.joint("block").qpos[0] += 0.5
    _, reward, terminated, _, info = env.step(np.zeros(4))
    assert (reward, terminated, info["is_success"]) == (0.0, True, False)


def test_an_episode_is_truncated_at_its_limit():
    env = make_panda_pick_cube(max_episode_steps=2)
    env.reset(seed=0)
    env.set_rendering(False)
    assert [env.step(np.zeros(4))[3] for _ in range(2)] == [False, True]
    env.close()


def test_gym_makes_it_under_its_id_with_a_limit_of_choice():
    env = gym.make(ENV_ID, max_episode_steps=1, image_size=32)
    assert env.reset(seed=0)[0]["pixels"]["front"].shape == (32, 32, 3)
    assert env.step(np.zeros(4))[3]
    env.close()


@pytest.mark.parametrize("action", [np.zeros(7), np.asarray([0, 0, np.nan, 0])])
def test_a_bad_action_is_refused(env, action):
    with pytest.raises(ValueError, match="four finite numbers"):
        env.step(action)


@pytest.mark.parametrize("settings", [{"detail": "nice"}, {"image_size": 0}, {"max_episode_steps": 0}])
def test_a_bad_setting_is_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        make_panda_pick_cube(**settings)
