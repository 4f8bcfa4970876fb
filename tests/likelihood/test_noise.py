"""The anchored chain as data."""

from itertools import pairwise

import numpy as np
import pytest

from pirl_jax.likelihood import modes
from pirl_jax.recipe import NoiseConfig


@pytest.mark.parametrize("K", [1, 2, 5, 7, 10, 33])
def test_chain_goes_from_one_to_zero_without_gaps(K):
    steps = modes.transitions(NoiseConfig(), K)
    assert len(steps) == K
    assert steps[0].t == 1.0
    assert steps[-1].s == 0.0
    assert all(before.s == after.t for before, after in pairwise(steps))
    assert all(step.std == 0.0 for step in steps)


@pytest.mark.parametrize("K", [1, 2, 5, 7, 10, 33])
def test_zero_noise_weights_are_those_of_a_float32_time_tensor(K):
    for step, k in zip(modes.transitions(NoiseConfig(), K), range(K, 0, -1)):
        # LeRobot: t = torch.full((B,), i / steps); x_t = x1 * t + action * (1 - t)
        s = np.full(1, (k - 1) / K, np.float32)
        assert np.float32(step.noise_coef) == s
        assert np.float32(step.action_coef) == 1 - s


def test_terminal_noises_only_the_last_step():
    steps = modes.transitions(NoiseConfig(level=0.3), 4, step=1)
    assert [step.std for step in steps] == [0.0, 0.0, 0.0, 0.3]
    assert (steps[-1].noise_coef, steps[-1].action_coef) == (0.0, 1.0)
    assert modes.MODES["terminal"].sample_step(np.random.default_rng(0), 4) == 1


@pytest.mark.parametrize("K", [1, 2, 5])
def test_flow_noise_noises_every_step_around_the_anchored_mean(K):
    config = NoiseConfig(mode="flow_noise", level=0.3)
    mode = modes.MODES["flow_noise"]
    step = mode.sample_step(np.random.default_rng(0), K)
    noised, plain = modes.transitions(config, K, step), modes.transitions(config, K)
    assert (step, mode.num_noised(K)) == (K, K)
    assert [s.std for s in noised] == K * [0.3]
    assert [s._replace(std=0.0) for s in noised] == list(plain)
    assert modes.num_latents(config, K) == K + 1


@pytest.mark.parametrize("mode", modes.MODES)
def test_a_level_for_each_row_gives_each_row_its_own_coefficients(mode):
    """What the learner computes for a batch is what the actor computes for a step."""
    K, levels = 5, np.array([0.1, 0.4, 0.9])
    k = np.array(modes.MODES[mode].noised_steps(K))
    rows = modes.MODES[mode].coefficients(modes.anchored_step(k, K), K, levels[:, None])
    for row, level in enumerate(levels):
        for column, index in enumerate(k):
            single = modes.noised_step(NoiseConfig(mode=mode, level=level), int(index), K)
            batched = [np.broadcast_to(x, (3, len(k)))[row, column] for x in rows]
            np.testing.assert_array_equal(batched, single)


def test_the_level_falls_linearly_and_stays():
    config = NoiseConfig(level=0.5, final_level=0.1, decay_updates=4)
    levels = [modes.level_at(config, update) for update in range(7)]
    np.testing.assert_allclose(levels, [0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1], rtol=1e-6)
    assert all(level == np.float32(level) for level in levels)
    assert {modes.level_at(NoiseConfig(level=0.3), update) for update in (0, 10)} == {float(np.float32(0.3))}


def test_a_step_that_the_mode_never_noises_is_refused():
    with pytest.raises(ValueError, match=r"noises one of the steps \(1,\) of 4; got step 2"):
        modes.transitions(NoiseConfig(), 4, step=2)


def test_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match="must be terminal or flow_sde or flow_cps or flow_noise; got 'brownian'"
    ):
        NoiseConfig(mode="brownian")


@pytest.mark.parametrize("K", [2, 5, 10])
def test_flow_sde_is_the_published_step_with_the_first_noise_kept(K):
    """πRL (arXiv 2510.25889, eq. 9) in x, v: μ = x + [v + σ²/2t·(x + (1-t)v)]·(-δ), std = σ√δ; v = ε₀ - â.

    With the point x_t = t·ε₀ + (1-t)·â of the straight path it is the anchored step.
    """
    config = NoiseConfig(mode="flow_sde", level=0.5)
    rng = np.random.default_rng(0)
    eps0, action = rng.normal(size=2)
    for k in range(1, K + 1):
        step = modes.noised_step(config, k, K)
        t, delta = k / K, 1 / K
        sigma = 0.5 * np.sqrt(t / (1 - t if k < K else delta))
        x, v = t * eps0 + (1 - t) * action, eps0 - action
        mean = x - delta * (v + sigma**2 / (2 * t) * (x + (1 - t) * v))
        assert step.noise_coef * eps0 + step.action_coef * action == pytest.approx(mean, abs=1e-7)
        assert step.std == pytest.approx(sigma * np.sqrt(delta), abs=1e-12)


@pytest.mark.parametrize("K", [2, 5, 10])
def test_flow_cps_keeps_the_noise_of_the_next_time(K):
    for k in range(2, K + 1):
        step = modes.noised_step(NoiseConfig(mode="flow_cps", level=0.6), k, K)
        assert step.noise_coef**2 + step.std**2 == pytest.approx(step.s**2)
        assert step.action_coef == pytest.approx(1 - step.s)


@pytest.mark.parametrize("mode", modes.MODES)
@pytest.mark.parametrize("K", [2, 5, 10])
def test_vanishing_noise_leaves_the_anchored_step(mode, K):
    for k in modes.MODES[mode].noised_steps(K):
        step, plain = modes.noised_step(NoiseConfig(mode=mode, level=1e-9), k, K), modes.anchored_step(k, K)
        assert (step.t, step.s, step.action_coef) == (plain.t, plain.s, plain.action_coef)
        assert step.noise_coef == pytest.approx(plain.noise_coef, abs=1e-7)
        assert 0 < step.std < 1e-8


@pytest.mark.parametrize(
    ("settings", "K", "message"),
    [
        ({"mode": "flow_cps", "level": 1.0}, 5, "below 1 with"),
        ({"level": 0.0}, 5, "above 0"),
        ({"mode": "flow_cps"}, 1, "no step to noise in policy.num_denoising_steps=1"),
        (
            {"final_level": 0.03, "decay_updates": 5},
            5,
            r"final_level must be at most noise.level=0.02",
        ),
        ({"final_level": 0.0, "decay_updates": 5}, 5, "final_level must be above 0"),
        ({"final_level": 0.01}, 5, "set both"),
        ({"decay_updates": 5}, 5, "set both"),
        ({"final_level": 0.01, "decay_updates": -5}, 5, "decay_updates must be ≥ 0"),
        ({"mode": "flow_noise", "std_range": (2.0, 0.5)}, 5, "std_range must be two numbers, the lower"),
        ({"mode": "flow_noise", "std_range": (0.0, 2.0)}, 5, "std_range must be above 0"),
        ({"mode": "flow_noise", "head_hidden_dims": (16, 0)}, 5, "head_hidden_dims must be ≥ 1"),
    ],
)
def test_what_a_mode_cannot_do_is_refused(settings, K, message):
    with pytest.raises(ValueError, match=message):
        modes.validate(NoiseConfig(**settings), K)


def test_channel_scales_multiply_the_level_group_by_group():
    groups = {"xyz": (0, 1), "rot6d": (3,)}
    scale = modes.channel_scale(NoiseConfig(group_scale={"rot6d": 2.5}), groups, 5)
    np.testing.assert_array_equal(scale, [1, 1, 0, 2.5, 0])
    with pytest.raises(ValueError, match="names 'joints'; this action space has xyz, rot6d"):
        modes.channel_scale(NoiseConfig(group_scale={"joints": 1.0}), groups, 5)
    with pytest.raises(ValueError, match=r"group_scale\.xyz must be above 0"):
        modes.channel_scale(NoiseConfig(group_scale={"xyz": 0.0}), groups, 5)


def test_a_chain_without_steps_is_refused():
    modes.validate(NoiseConfig(), 1)
    with pytest.raises(ValueError, match="num_denoising_steps=0"):
        modes.validate(NoiseConfig(), 0)
