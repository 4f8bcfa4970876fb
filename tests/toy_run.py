"""A policy whose numbers can be worked out by hand, and episodes for it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from by_recipe import FunctionPolicy, create, make_evaluate, make_recipe

from pirl_jax.recipe import NoiseConfig, Recipe
from pirl_jax.rollout.episode import Episode, Observations
from pirl_jax.update import state
from pirl_jax.update.critic import Evaluate

H, A, K, STD = 3, 2, 4, 0.5
RECIPE = make_recipe(
    noise=NoiseConfig(level=STD),
    episodes_per_update=3,
    max_chunks=4,
    num_epochs=1,
    minibatch_size=4,
    gamma=0.9,
    gae_lambda=0.8,
    max_staleness=0,
)


PARAMS = {"w": jnp.float32(0.3)}


FROZEN = {"scale": jnp.float32(2.0)}


CRITIC = {"v": jnp.float32(0.7)}


def fresh_state(recipe: Recipe, params: Any = PARAMS) -> state.TrainState:
    """Of copies: an update donates them."""
    return create(*jax.tree.map(jnp.copy, (params, CRITIC)), recipe, seed=0)


def toy_policy() -> FunctionPolicy:
    """Features are the scaled mean pixel, â = w·feature + proprio + t."""
    return FunctionPolicy(
        split=lambda params: ({"w": params["w"]}, {"scale": params["scale"]}),
        merge=lambda trainable, frozen: {**frozen, **trainable},
        encode=lambda frozen, images, tokens: frozen["scale"] * images.astype(jnp.float32).mean((1, 2, 3, 4)),
        predict=lambda params, features, x_t, t, proprio, domain_id: (
            (params["w"] * features + proprio[:, 0] + t)[:, None, None] + 0 * x_t
        ),
        supervised_loss=lambda params, features, proprio, domain_id, action, key: (
            (params["w"] * features[:, None, None] - action) ** 2
        ).mean(),
        critic_inputs={"vlm": lambda params, features, proprio, domain_id: features},
        prepare_proprio=lambda raw: raw,
        summarize=lambda features, proprio: jnp.concatenate([features[:, None], proprio], axis=1),
        summary_dim=2,
        num_denoising_steps=K,
        chunk_size=H,
        dim_action=A,
        channel_groups={"joints": (0,)},
    )


def critic(params, features, proprio):
    return params["v"] * features


def evaluate(recipe: Recipe) -> Evaluate:
    return make_evaluate(toy_policy(), critic, recipe)


def episode(seed: int, T: int, *, terminated: bool, version: int | Sequence[int] | np.ndarray = 1) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        observations=Observations(
            images=rng.integers(0, 256, (T + 1, 1, 3, 2, 2), dtype=np.uint8),
            tokens=np.zeros((T + 1, 1), np.int64),
            domain_id=np.zeros(T + 1, np.int64),
            proprio=rng.standard_normal((T + 1, 1)).astype(np.float32),
        ),
        latents=rng.standard_normal((T, 3, H, A)).astype(np.float32),
        denoise_step=np.ones(T, np.int32),
        log_prob=np.zeros((T, H), np.float32),
        executed=rng.integers(1, H + 1, T).astype(np.int32),
        reward=rng.standard_normal(T).astype(np.float32),
        version=np.full(T, version),
        feature_key=np.zeros(T, np.int64),
        terminated=terminated,
        truncated=not terminated,
        success=terminated,
    )
