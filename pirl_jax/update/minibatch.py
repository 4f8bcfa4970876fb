"""One minibatch step: policy and critic, each with an objective, a gradient and AdamW of its own."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from pirl_jax.optim import clip_factor, descend, scaled, warmup
from pirl_jax.typing import Array, Bool, Float, Metrics, Params
from pirl_jax.update import losses
from pirl_jax.update.critic_steps import apply_critic_step
from pirl_jax.update.method import Method
from pirl_jax.update.objective import (
    CriticRows,
    Draw,
    Minibatch,
    critic_objective,
    imitation_objective,
    policy_objective,
)
from pirl_jax.update.state import TrainState, adamw, trained_leaves


class Sums(NamedTuple):
    """Of a minibatch's policy, what its parts have added up to so far."""

    loss: Float[Array, ""]
    metrics: Metrics
    grads: Params


class Half(NamedTuple):
    """What one half of a step, the policy's or the critic's, was like."""

    metrics: Metrics
    finite: Bool[Array, ""]
    """Loss and gradient are finite: the metrics count."""
    applied: Bool[Array, ""]
    """The parameters moved."""


class Report(NamedTuple):
    """What a minibatch step was like."""

    policy: Half
    critic: Half | None
    """None without a critic: a group's advantages need none, and there are no targets to fit one to."""


def slots(method: Method, size: int) -> int:
    """Return the rows of a minibatch of ``size`` points: microbatches are of one size."""
    microbatch = method.microbatch_size or size
    return -(-size // microbatch) * microbatch


def no_sums(method: Method, params: Params, part: Minibatch) -> Sums:
    """Return the sums before the first part; of the part only the shapes matter."""
    total = losses.Total(jnp.float32(0), jnp.float32(0))
    loss, metrics = jax.eval_shape(partial(policy_objective, method), params, part, total)
    shapes = Sums(loss, metrics, jax.eval_shape(lambda tree: tree, params))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def add_part(method: Method, params: Params, sums: Sums, part: Minibatch, total: losses.Total) -> Sums:
    """Add a part's share of the policy's loss, metrics and gradient.

    The shares of all parts add up to what the whole gives at once, in the memory of one part.

    Args:
        method: what a step does.
        params: of the policy.
        sums: of the parts before it.
        part: of the minibatch.
        total: of the minibatch.
    """
    trained = trained_leaves(params, method.group)

    def share(params: Params) -> tuple[Float[Array, ""], Metrics]:
        return policy_objective(method, _held(params, trained), part, total)

    with jax.named_scope("policy_gradient"):
        (loss, metrics), grads = jax.value_and_grad(share, has_aux=True)(params)
    return jax.tree.map(jnp.add, sums, Sums(loss, metrics, grads))


def policy_step(method: Method, state: TrainState, sums: Sums, draw: Draw | None) -> tuple[TrainState, Half]:
    """Move the policy, unless loss or gradient is not finite or the approximate KL exceeds ``target_kl``.

    Args:
        method: what a step does.
        state: before the step.
        sums: of all of the minibatch's parts.
        draw: demonstrations that are learned from beside it.
    """
    optimizer = method.optimizer
    trained = trained_leaves(state.params, method.group)
    loss, metrics, grads = sums
    if draw is not None:
        imitate = jax.value_and_grad(
            lambda p: imitation_objective(method, _held(p, trained), draw), has_aux=True
        )
        (more, their_metrics), their_grads = imitate(state.params)
        loss, metrics = loss + more, metrics | their_metrics
        grads = jax.tree.map(jnp.add, grads, their_grads)
    factor, grad_norm = clip_factor(grads, optimizer.grad_clip_norm)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    target = optimizer.target_kl
    exceeds = jnp.bool_(False) if target is None else metrics["approx_kl"] > target
    applied = finite & ~exceeds

    def move(params: Params, opt_state: optax.OptState) -> tuple[Params, optax.OptState]:
        clipped = scaled(grads, factor)
        direction, opt_state = adamw(optimizer, trained).update(clipped, opt_state, params)
        lr = state.lr * warmup(opt_state, optimizer.lr_warmup_steps)
        return descend(params, direction, lr), opt_state

    # A branch, and no selection between before and after: it works in the place of what it was given, where
    # a selection would have to hold parameters and moments twice.
    with jax.named_scope("policy_step"):
        params, opt_state = jax.lax.cond(applied, move, lambda *same: same, state.params, state.opt_state)
    state = state.replace(params=params, opt_state=opt_state)
    return state, Half({"policy_loss": loss, "grad_norm": grad_norm, **metrics}, finite, applied)


def critic_step(method: Method, state: TrainState, rows: CriticRows) -> tuple[TrainState, Half]:
    """Move the critic, unless loss or gradient is not finite."""
    with jax.named_scope("critic_step"):
        loss, grads = jax.value_and_grad(partial(critic_objective, method))(state.critic_params, rows)
        state, grad_norm, finite = apply_critic_step(method, state, loss, grads)
    return state, Half({"value_loss": loss, "critic_grad_norm": grad_norm}, finite, finite)


def minibatch_step(
    method: Method,
    state: TrainState,
    sums: Sums,
    rows: CriticRows | None,
    draw: Draw | None,
    policy_learns: Bool[Array, ""],
) -> tuple[TrainState, Report]:
    """Take one step of policy and critic: a pure function, whoever chooses the rows.

    Args:
        method: what a step does.
        state: before the step.
        sums: of the minibatch's parts, for the policy.
        rows: of the minibatch, for the critic; None without one.
        draw: demonstrations that the policy learns from beside it.
        policy_learns: false once the policy has gone far enough in this update, or while the critic warms up;
            its half of the report is then zeros, neither finite nor applied.
    """

    def skip(state: TrainState) -> tuple[TrainState, Half]:
        shapes = jax.eval_shape(partial(policy_step, method), state, sums, draw)[1]
        return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def learn(state: TrainState) -> tuple[TrainState, Half]:
        return policy_step(method, state, sums, draw)

    state, policy = jax.lax.cond(policy_learns, learn, skip, state)
    if rows is None:
        return state, Report(policy, None)
    state, critic = critic_step(method, state, rows)
    return state, Report(policy, critic)


def _held(params: Params, trained: Params | None) -> Params:
    """Return parameters of which only the trained ones have a gradient."""
    if trained is None:
        return params
    return jax.tree.map(lambda p, moves: p if moves else jax.lax.stop_gradient(p), params, trained)
