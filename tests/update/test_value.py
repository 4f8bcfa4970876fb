"""The critic: a float32 value of one feature vector, which starts near zero and leaves the feature alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirl_jax.update.critic import Critic

BATCH, WIDTH = 4, 10


@pytest.mark.parametrize("proprio_dim", [0, 3])
def test_values_are_an_mlp_of_the_input_and_proprioception(proprio_dim: int) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], (BATCH, WIDTH))
    proprio = jax.random.normal(keys[1], (BATCH, proprio_dim))
    critic = Critic(hidden_dims=(8, 5))
    params = critic.init(keys[2], inputs, proprio)["params"]
    values = critic.apply({"params": params}, inputs, proprio)
    assert values.shape == (BATCH,)
    assert values.dtype == jnp.float32
    assert abs(values).max() < 0.2

    x = np.concatenate([np.asarray(inputs, np.float64), np.asarray(proprio, np.float64)], axis=1)
    for name in ("hidden_0", "hidden_1"):
        x = x @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name]["bias"], np.float64)
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    expected = x @ np.asarray(params["value"]["kernel"], np.float64) + np.asarray(params["value"]["bias"])
    np.testing.assert_allclose(values, expected[:, 0], rtol=1e-4, atol=1e-6)


def test_no_gradient_reaches_the_input() -> None:
    inputs, proprio = jnp.ones((BATCH, WIDTH)), jnp.ones((BATCH, 2))
    critic = Critic(hidden_dims=(4,))
    params = critic.init(jax.random.key(0), inputs, proprio)["params"]
    gradient = jax.grad(lambda x: critic.apply({"params": params}, x, proprio).sum())(inputs)
    assert not gradient.any()
