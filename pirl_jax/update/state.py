"""Everything an update changes, as one pytree: what is donated to it, and what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax

from pirl_jax.optim import adamw_direction, named_leaves
from pirl_jax.recipe import OptimizerConfig
from pirl_jax.typing import Array, Float, Int, PRNGKeyArray, PyTree


class TrainState(flax.struct.PyTreeNode):
    """The trainable policy parameters, the critic, their optimisers and the run's counters."""

    params: PyTree
    """Trainable policy parameters only (the flow head). Frozen ones never change and are kept outside."""
    critic_params: PyTree
    reference: PyTree
    """The policy parameters the run began with, where ``reference_kl_coef`` wants them; else empty."""
    opt_state: optax.OptState
    critic_opt_state: optax.OptState
    key: PRNGKeyArray
    """Never changes: each update folds ``updates`` into it, so a resumed run draws what it would have."""
    updates: Int[Array, ""]
    """Updates done."""
    episodes: Int[Array, ""]
    """Episodes settled: those with lower numbers were learned from or dropped, others are to be played."""
    lr: Float[Array, ""]
    """The policy's current learning rate (``adaptive_lr`` moves it)."""


def adamw(config: OptimizerConfig, trained: PyTree | None = None) -> optax.GradientTransformation:
    """AdamW up to the learning rate, which is ``TrainState.lr`` or ``CriticConfig.lr``.

    Args:
        config: its numbers.
        trained: which parameters it moves (``trained_leaves``); the others get no moments and, if their
            gradients are zeros, no step. None: all.
    """
    direction = adamw_direction(config.betas, config.eps, config.weight_decay)
    return direction if trained is None else optax.masked(direction, trained)


def trained_leaves(params: PyTree, group: Callable[[str], str | None]) -> PyTree | None:
    """Return for each of a policy's trainable parameters whether it is trained; None if all of them are."""
    flags = [group(name) is not None for name, _ in named_leaves(params)]
    return None if all(flags) else jax.tree.unflatten(jax.tree.structure(params), flags)


def create(
    params: PyTree,
    critic_params: PyTree,
    optimizer: OptimizerConfig,
    seed: int,
    keep_reference: bool = False,
    trained: PyTree | None = None,
) -> TrainState:
    """The state before the first update, which will donate the parameters' buffers.

    Args:
        params: the policy's trainable ones.
        critic_params: the critic's.
        optimizer: AdamW's numbers and the first learning rate.
        seed: of every draw of the run.
        keep_reference: whether the first parameters are wanted later.
        trained: which of ``params`` are trained (``trained_leaves``); None: all.
    """
    return TrainState(
        params=params,
        critic_params=critic_params,
        # A copy: the update donates the parameters' buffers.
        reference=jax.tree.map(jnp.copy, params) if keep_reference else {},
        opt_state=adamw(optimizer, trained).init(params),
        critic_opt_state=adamw(optimizer).init(critic_params),
        key=first_key(seed),
        updates=jnp.zeros((), jnp.int32),
        episodes=jnp.zeros((), jnp.int32),
        lr=first_lr(optimizer),
    )


def first_key(seed: int) -> PRNGKeyArray:
    """Return what all of a run's draws are made of."""
    return jax.random.PRNGKey(seed)


def first_lr(optimizer: OptimizerConfig) -> Float[Array, ""]:
    """Return the policy's learning rate before any update."""
    return jnp.asarray(optimizer.lr, jnp.float32)
