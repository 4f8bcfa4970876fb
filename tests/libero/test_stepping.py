"""Stepping whole chunks, with images of their ends only, changes nothing that can be seen."""

import numpy as np
import pytest
import torch
from chunked import IMAGES, SUITES, chunked, random_chunk, row, stock, task
from lerobot.envs.utils import preprocess_observation
from lerobot.policies.xvla.processor_xvla import LiberoProcessorStep
from quick import quick

SEED = 5


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


@pytest.mark.parametrize("suite", quick(SUITES, "libero_object", "libero_10"))
def test_a_chunk_ends_with_the_state_and_images_of_plain_stepping(suite):
    rng = np.random.default_rng(0)
    ours, plain = chunked(task(suite, 3)), stock(task(suite, 3))
    # An episode that leaves its traces: later ones do not compile the scene anew as the stock ones do.
    ours.reset(seed=SEED + 1, options={"init_state": 2})
    ours.step(row(random_chunk(rng, 10)))
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
