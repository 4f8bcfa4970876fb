"""Everything an update changes, as one pytree: what is donated to it, and what a checkpoint holds."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import optax

from pirl_jax.optim import adamw_direction
from pirl_jax.recipe import Recipe
from pirl_jax.typing import Array, Float, Int, PRNGKeyArray, PyTree


class TrainState(flax.struct.PyTreeNode):
    """The trainable policy parameters, the critic, their optimisers and the run's counters."""

    params: PyTree
    """Trainable policy parameters only (the flow head). Frozen ones never change and are kept outside."""
    critic_params: PyTree
    reference: PyTree
    """The policy parameters the run began with, where ``Recipe.reference_kl_coef`` wants them; else empty."""
    opt_state: optax.OptState
    critic_opt_state: optax.OptState
    key: PRNGKeyArray
    """Never changes: each update folds ``step`` into it, so a resumed run draws what it would have."""
    step: Int[Array, ""]
    """Updates done."""
    version: Int[Array, ""]
    """Version of the parameters last pushed to the actors; only ever grows."""
    lr: Float[Array, ""]
    """The policy's current learning rate (``Recipe.adaptive_lr`` moves it)."""


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """AdamW for policy and critic, up to the learning rate: that is ``lr`` or ``Recipe.critic.lr``."""
    return adamw_direction(recipe.betas, recipe.eps, recipe.weight_decay)


def create(params: PyTree, critic_params: PyTree, recipe: Recipe, seed: int) -> TrainState:
    """The state before the first update, which will donate the parameters' buffers."""
    return TrainState(
        params=params,
        critic_params=critic_params,
        # A copy: the update donates the parameters' buffers.
        reference=jax.tree.map(jnp.copy, params) if recipe.reference_kl_coef else {},
        opt_state=optimizer(recipe).init(params),
        critic_opt_state=optimizer(recipe).init(critic_params),
        key=jax.random.PRNGKey(seed),
        step=jnp.zeros((), jnp.int32),
        version=jnp.zeros((), jnp.int32),
        lr=jnp.asarray(recipe.lr, jnp.float32),
    )
