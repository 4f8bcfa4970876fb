"""The network that learns a standard deviation: where it starts and what it cannot leave."""

import jax
import jax.numpy as jnp
import numpy as np
from toy_run import A, toy_policy

from pirl_jax.likelihood import noise_head
from pirl_jax.likelihood.modes import NOISE_HEAD
from pirl_jax.recipe import NoiseConfig

CONFIG = NoiseConfig(mode="flow_noise", std_range=(0.5, 4.0), head_hidden_dims=(8, 4))
FEATURES = jnp.linspace(-3.0, 3.0, 7)
PROPRIO = jnp.cos(FEATURES)[:, None]
TIMES = jnp.linspace(0.1, 1.0, 7)


def factors(params, config=CONFIG):
    spread = noise_head.log_multiplier_of(toy_policy(), config)
    return np.exp(np.asarray(spread(params, FEATURES, PROPRIO, TIMES)))


def test_it_starts_at_the_geometric_mean_whatever_the_observation():
    params = noise_head.init(toy_policy(), CONFIG, jax.random.PRNGKey(0))
    np.testing.assert_allclose(factors(params), np.full((7, A), np.sqrt(0.5 * 4.0)), rtol=1e-6)
    assert all(np.any(params[NOISE_HEAD][name]["weight"]) for name in ("hidden_0", "hidden_1"))


def random_params(size):
    params = noise_head.init(toy_policy(), CONFIG, jax.random.PRNGKey(0))
    bound = params[NOISE_HEAD]["bound"]
    bound["weight"] = size * jax.random.normal(jax.random.PRNGKey(1), bound["weight"].shape)
    return params


def test_it_depends_on_every_input():
    params, spread = random_params(1.0), noise_head.log_multiplier_of(toy_policy(), CONFIG)
    inputs = (FEATURES, PROPRIO, TIMES)
    for index, changed in enumerate((FEATURES + 1, PROPRIO + 1, 1 - TIMES)):
        others = (*inputs[:index], changed, *inputs[index + 1 :])
        assert not np.allclose(spread(params, *others), spread(params, *inputs), atol=1e-3)


def test_it_stays_within_its_bounds():
    found = factors(random_params(1e6))
    np.testing.assert_allclose([found.min(), found.max()], CONFIG.std_range, rtol=1e-6)


def test_a_mode_that_does_not_learn_has_no_head():
    for mode in ("terminal", "flow_sde", "flow_cps"):
        assert noise_head.init(toy_policy(), NoiseConfig(mode=mode), jax.random.PRNGKey(0)) == {}
        assert noise_head.log_multiplier_of(toy_policy(), NoiseConfig(mode=mode)) is None
