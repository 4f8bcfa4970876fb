"""The anchored chain as data."""

from itertools import pairwise

import numpy as np
import pytest

from pirl_jax import noise
from pirl_jax.recipe import NoiseConfig


@pytest.mark.parametrize("K", [1, 2, 5, 7, 10, 33])
def test_chain_goes_from_one_to_zero_without_gaps(K):
    steps = noise.schedule(NoiseConfig(), K)
    assert len(steps) == K
    assert steps[0].t == 1.0
    assert steps[-1].s == 0.0
    assert all(before.s == after.t for before, after in pairwise(steps))
    assert all(step.std == 0.0 for step in steps)


@pytest.mark.parametrize("K", [1, 2, 5, 7, 10, 33])
def test_zero_noise_weights_are_those_of_a_float32_time_tensor(K):
    for step, k in zip(noise.schedule(NoiseConfig(), K), range(K, 0, -1)):
        # LeRobot: t = torch.full((B,), i / steps); x_t = x1 * t + action * (1 - t)
        s = np.full(1, (k - 1) / K, np.float32)
        assert np.float32(step.noise_coef) == s
        assert np.float32(step.action_coef) == 1 - s


def test_terminal_noises_only_the_last_step():
    steps = noise.schedule(NoiseConfig(std=0.3), 4, step=1)
    assert [step.std for step in steps] == [0.0, 0.0, 0.0, 0.3]
    assert (steps[-1].noise_coef, steps[-1].action_coef) == (0.0, 1.0)
    assert noise.MODES["terminal"].sample_step(np.random.default_rng(0), 4) == 1


def test_a_step_that_the_mode_never_noises_is_refused():
    with pytest.raises(ValueError, match=r"noises one of the steps \(1,\) of 4; got step 2"):
        noise.schedule(NoiseConfig(), 4, step=2)


def test_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="must be one of terminal; got 'brownian'"):
        noise.validate(NoiseConfig(mode="brownian"))


def test_a_chain_without_steps_is_refused():
    noise.validate(NoiseConfig(), 1)
    with pytest.raises(ValueError, match="num_denoising_steps=0"):
        noise.validate(NoiseConfig(), 0)
