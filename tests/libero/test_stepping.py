"""Stepping whole chunks, with images of their ends only, changes nothing that can be seen."""

import numpy as np
import pytest
import torch
from lerobot.envs.utils import preprocess_observation
from lerobot.policies.xvla.processor_xvla import LiberoProcessorStep

from bridge.plugin.chunk_env import ChunkEnv
from bridge.record import Record, pack

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
SIZE = 96
SEED = 5
IMAGES = {name: f"observation.images.{name}" for name in ("image", "image2")}


def stock(task, **settings):
    from lerobot.envs.libero import LiberoEnv, _get_suite

    defaults = {
        "obs_type": "pixels_agent_pos",
        "observation_height": SIZE,
        "observation_width": SIZE,
        "control_mode": "absolute",
    }
    return LiberoEnv(_get_suite(task.suite), task.number, task.suite, **(defaults | settings))


def chunked(*tasks, max_cached=4, **settings):
    from bridge.libero.schedule import Schedule
    from bridge.libero.tasks import LiberoTasks

    inner = LiberoTasks(
        tasks, lambda task: stock(task, **settings), Schedule(len(tasks), "round_robin"), max_cached
    )
    return ChunkEnv(
        inner,
        image_keys=IMAGES,
        image_shapes=dict.fromkeys(IMAGES.values(), (3, SIZE, SIZE)),
        state_dim=20,
        tokens=[[index, 1] for index in range(len(tasks))],
    )


def row(actions):
    actions = np.asarray(actions, np.float32)
    latents = np.zeros((3, len(actions), 20), np.float32)
    return pack(Record(actions, latents, np.zeros(len(actions), np.float32), denoise_step=1, version=1))


def random_chunk(rng, steps):
    """Absolute poses in front of the robot, the gripper opening and closing."""
    low = (-0.2, -0.2, 0.9, 2.8, -0.3, -0.3)
    high = (0.1, 0.2, 1.2, 3.2, 0.3, 0.3)
    gripper = np.where(rng.random((steps, 1)) > 0.5, 1.0, -1.0)
    return np.hstack([rng.uniform(low, high, (steps, 6)), gripper]).astype(np.float32)


def processed(observation):
    """Batch, convert and process as lerobot-eval does."""

    def batch(value):
        if isinstance(value, dict):
            return {key: batch(part) for key, part in value.items()}
        return np.asarray(value)[None]

    return LiberoProcessorStep().observation(preprocess_observation(batch(observation)))


def assert_same(ours, plain):
    plain = processed(plain)
    for key in IMAGES.values():
        assert ours[key].float().std() > 10, "nothing to see"
        assert torch.equal(ours[key].float() / 255, plain[key]), key
    assert torch.equal(ours["observation.state"], plain["observation.state"])


def make_current(plain):
    """Choose the OpenGL context, which robosuite itself never does after creating one."""
    plain._env.sim._render_context_offscreen.gl_ctx.make_current()


def state(env):
    return env._env.get_sim_state()


def inner_env(env):
    return env.env._current.env


def task(suite, number=0):
    from bridge.libero.suites import TaskId

    return TaskId(suite, number)


@pytest.mark.parametrize("suite", SUITES)
def test_a_chunk_ends_with_the_state_and_images_of_plain_stepping(suite):
    rng = np.random.default_rng(0)
    ours, plain = chunked(task(suite, 3)), stock(task(suite, 3))
    plain.init_state_id = 7
    reset, _ = ours.reset(seed=SEED, options={"init_state": 7})
    assert_same(reset, plain.reset(seed=SEED)[0])
    for steps in (8, 1, 5):
        chunk = random_chunk(rng, steps)
        observation, *_ = ours.step(row(chunk))
        make_current(plain)
        for action in chunk:
            expected, *_ = plain.step(action)
        np.testing.assert_array_equal(state(inner_env(ours)), state(plain))
        assert_same(observation, expected)
    ours.close()
    plain.close()


def test_success_inside_a_chunk_ends_it_there_and_is_seen():
    """The knob of the stove, given a push, turns while the arm holds still; then the burner lights up."""
    stove = task("libero_goal", 7)
    ours, plain = chunked(stove), stock(stove)
    plain.init_state_id = 0
    ours.reset(seed=SEED, options={"init_state": 0})
    plain.reset(seed=SEED)
    hold = np.tile(np.float32([-0.2, 0, 1.2, 3.1, 0, 0, -1]), (10, 1))
    for env in (inner_env(ours), plain):
        knob = next(name for name in env._env.sim.model.joint_names if "stove" in name and "button" in name)
        env._env.sim.data.set_joint_qvel(knob, 4.0)
    observation, reward, terminated, truncated, info = ours.step(row(hold))
    make_current(plain)
    steps, done = 0, False
    while not done:
        expected, _, done, *_ = plain.step(hold[steps])
        steps += 1
    assert 1 < steps < len(hold)
    assert info["discrete_penalty"][0] == steps
    assert (reward, terminated, truncated, info["is_success"]) == (1.0, True, False, True)
    np.testing.assert_array_equal(state(inner_env(ours)), state(plain))
    assert_same(observation, expected)
    ours.close()
    plain.close()
