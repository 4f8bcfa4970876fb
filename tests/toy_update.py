"""A linear policy and critic, chunks of them, and the plain formulas of their training."""

from functools import partial

import by_recipe
import jax
import jax.numpy as jnp
import numpy as np
from by_config import jit_by_config
from by_recipe import create, make_recipe, make_update

from pirl_jax.likelihood import flow
from pirl_jax.likelihood.modes import MODES
from pirl_jax.recipe import CriticConfig, NoiseConfig
from pirl_jax.update.batch import Batch, pad_rows

H, A, K, P = 3, 2, 2, 2
SCALE = np.ones(2)
CAPACITY = 24


def predict(params, features, x_t, t, proprio, domain_id):
    """A head that is linear in its context, and a little in the chain."""
    mean = proprio @ params["weight"] + params["bias"]
    return mean[:, None, :] + 0.05 * x_t * t[:, None, None] + 0.0 * features[:, :1, None]


def spread(params, features, proprio, t):
    """A noise head that knows the time and nothing of the observation."""
    return params["log_std"] + 0.1 * t[:, None]


def critic(params, inputs, proprio):
    return inputs @ params["weight"] + params["bias"]


def recipe(**changes):
    mode = changes.pop("mode", "terminal")
    noise = NoiseConfig(mode=mode, level=0.3, replay=changes.pop("replay", "last"))
    critic_config = CriticConfig(lr=changes.pop("critic_lr", 1e-2), extra_steps=changes.pop("extra_steps", 0))
    settings_ = {"lr": 1e-2, "num_epochs": 2, "minibatch_size": 8, **changes}
    return make_recipe(noise=noise, critic=critic_config, **settings_)


def new_state(config, seed=0):
    rng = np.random.default_rng(seed)
    params = {"weight": rng.normal(size=(P, A)), "bias": rng.normal(size=A), "log_std": np.zeros(A)}
    critic_params = {"weight": rng.normal(size=4), "bias": np.zeros(())}
    as_float32 = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (params, critic_params))
    return create(*as_float32, config, seed)


def method_of(config):
    chain = flow.Chain(config.noise, K, SCALE)
    return by_recipe.method_of(predict, critic, config, chain, spread)


def update_of(config):
    return make_update(predict, critic, config, flow.Chain(config.noise, K, SCALE), spread)


def collect(params, config, n, seed, levels=(1.0, 1.0)):
    """Sample n chunks under ``params``, with random advantages and values.

    ``levels``: between which factors on the config's noise level the rows' own lie.
    """
    rng = np.random.default_rng(seed)
    proprio = jnp.asarray(rng.normal(size=(n, P)), jnp.float32)
    features = jnp.asarray(rng.normal(size=(n, 4)), jnp.float32)
    domain_id = jnp.asarray(np.zeros(n, np.int32))
    k = jnp.asarray(np.full(n, MODES[config.noise.mode].first_steps(K)[0], np.int32))
    level = jnp.asarray(np.linspace(*levels, n) * config.noise.level, jnp.float32)
    step_mask = np.arange(H) < rng.integers(1, H + 1, size=n)[:, None]
    latents, per_step = drawn(config.noise, params, seed, features, proprio, domain_id, k, level)
    advantages = jnp.asarray(rng.normal(size=n), jnp.float32)
    return Batch(
        features=features,
        proprio=proprio,
        domain_id=domain_id,
        latents=latents,
        denoise_step=k,
        level=level,
        step_mask=jnp.asarray(step_mask),
        old_log_prob=per_step,
        advantages=advantages,
        value_targets=jnp.asarray(rng.normal(size=n), jnp.float32),
        old_values=jnp.asarray(rng.normal(size=n), jnp.float32),
        critic_input=features,
    )


@jit_by_config
def drawn(noise, params, seed, features, proprio, domain_id, k, level):
    """Latents and log-probabilities of chunks that are sampled under ``params``."""
    n, keys = len(proprio), jax.random.split(jax.random.PRNGKey(seed), 2)

    def head(x_t, t):
        return predict(params, features, x_t, t, proprio, domain_id)

    bound, chain = partial(spread, params, features, proprio), flow.Chain(noise, K, SCALE)
    eps0 = jax.random.normal(keys[0], (n, H, A), jnp.float32)
    chunk = flow.sample(chain, head, eps0, jax.random.split(keys[1], n), k, level, bound)
    return chunk.latents, flow.log_prob(chain, head, chunk.latents, k, level, bound)


def padded(batch, capacity=CAPACITY):
    return jax.device_put(pad_rows(jax.device_get(batch), capacity))


def assert_same(actual, expected):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def adam(gradients_at, params, lr, steps, betas=(0.9, 0.95), eps=1e-8, max_norm=1.0, warmup=1):
    """Clipped Adam in float64, the plain formulas."""
    first = second = np.zeros_like(params)
    for step in range(1, steps + 1):
        gradient = gradients_at(params)
        gradient = gradient * min(1.0, max_norm / (np.linalg.norm(gradient) + 1e-6))
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        corrected = first / (1 - betas[0] ** step), second / (1 - betas[1] ** step)
        params = params - lr * min(1, step / warmup) * corrected[0] / (np.sqrt(corrected[1]) + eps)
    return params
