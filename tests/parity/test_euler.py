"""A velocity policy without noise is LeRobot's Euler sampler (π0, SmolVLA)."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from lerobot.policies.common.flow_matching import euler_integrate

from pirl_jax.likelihood import flow, modes
from pirl_jax.recipe import NoiseConfig

B, H, A = 3, 8, 6


@pytest.fixture
def network():
    """Weights of a small velocity field, and ε₀."""
    rng = np.random.default_rng(0)
    shapes = {"mix": (A, A), "time": (A,), "bias": (H, A), "noise": (B, H, A)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def torch_velocity(network):
    mix, time, bias = (torch.from_numpy(network[name]) for name in ("mix", "time", "bias"))
    return lambda x, t: torch.tanh(x @ mix + t[:, None, None] * time + bias)


@pytest.mark.parametrize("K", [1, 3, 10])
def test_zero_noise_is_lerobots_euler_sampler(network, K):
    expected = euler_integrate(torch_velocity(network), torch.from_numpy(network["noise"]), K)

    def predict(x, t):
        return jnp.tanh(x @ network["mix"] + t[:, None, None] * network["time"] + network["bias"])

    chain = flow.Chain(NoiseConfig(), K, np.ones(A), parametrization="velocity")
    actual = flow.deterministic(chain, predict, jnp.asarray(network["noise"]))
    np.testing.assert_allclose(actual, expected.numpy(), atol=5e-6)


@pytest.mark.parametrize("K", [1, 3, 7, 10, 50])
def test_the_schedule_is_lerobots_loop_bit_for_bit_in_torch(network, K):
    velocity, x1 = torch_velocity(network), torch.from_numpy(network["noise"])
    expected = euler_integrate(velocity, x1, K)
    x = x1
    for step in modes.transitions(NoiseConfig(), K, parametrization="velocity"):
        v = velocity(x, torch.full((B,), step.t))
        x = x1 * step.noise_coef + v * step.action_coef + x * step.x_coef
    assert torch.equal(x, expected)
