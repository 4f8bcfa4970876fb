"""One minibatch step: policy and critic, each with an objective, a gradient and AdamW of its own."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pirl_jax.optim import clip_by_global_norm, descend, select, summed_gradient, warmup
from pirl_jax.typing import Array, Bool, Float, Metrics, Params
from pirl_jax.update import losses
from pirl_jax.update.critic_steps import apply_critic_step
from pirl_jax.update.method import Method
from pirl_jax.update.objective import Minibatch, critic_objective, imitation_objective, policy_objective
from pirl_jax.update.state import TrainState, adamw, trained_leaves


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


def policy_gradient(
    method: Method, params: Params, rows: Minibatch
) -> tuple[Float[Array, ""], Metrics, Params]:
    """Return loss, metrics and gradient of a minibatch, computed ``microbatch_size`` points at a time.

    The parts' shares add up to what the whole gives at once, in the memory of one part.
    """
    total = losses.total(rows.points.step_mask, rows.weight, method.objective.aggregation)
    trained = trained_leaves(params, method.group)

    def held(params: Params) -> Params:
        if trained is None:
            return params
        return jax.tree.map(lambda p, moves: p if moves else jax.lax.stop_gradient(p), params, trained)

    def share(params: Params, part: Minibatch) -> tuple[Float[Array, ""], Metrics]:
        return policy_objective(method, held(params), part, total)

    size = method.microbatch_size or len(rows.weight)
    parts = len(rows.weight) // size
    cut = jax.tree.map(lambda x: x.reshape(parts, size, *x.shape[1:]), rows._replace(draw=None))
    (loss, metrics), grads = summed_gradient(share, params, cut)
    if (draw := rows.draw) is not None:
        imitate = jax.value_and_grad(lambda p: imitation_objective(method, held(p), draw), has_aux=True)
        (more, their_metrics), their_grads = imitate(params)
        loss, metrics = loss + more, metrics | their_metrics
        grads = jax.tree.map(jnp.add, grads, their_grads)
    return loss, metrics, grads


def policy_step(method: Method, state: TrainState, rows: Minibatch) -> tuple[TrainState, Half]:
    """Move the policy, unless loss or gradient is not finite or the approximate KL exceeds ``target_kl``."""
    optimizer = method.optimizer
    trained = trained_leaves(state.params, method.group)
    with jax.named_scope("policy_step"):
        loss, metrics, grads = policy_gradient(method, state.params, rows)
        grads, grad_norm = clip_by_global_norm(grads, optimizer.grad_clip_norm)
        direction, opt_state = adamw(optimizer, trained).update(grads, state.opt_state, state.params)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    target = optimizer.target_kl
    exceeds = jnp.bool_(False) if target is None else metrics["approx_kl"] > target
    applied = finite & ~exceeds
    params = descend(state.params, direction, state.lr * warmup(opt_state, optimizer.lr_warmup_steps))
    state = state.replace(
        params=select(applied, params, state.params),
        opt_state=select(applied, opt_state, state.opt_state),
    )
    return state, Half({"policy_loss": loss, "grad_norm": grad_norm, **metrics}, finite, applied)


def critic_step(method: Method, state: TrainState, rows: Minibatch) -> tuple[TrainState, Half]:
    """Move the critic, unless loss or gradient is not finite."""
    with jax.named_scope("critic_step"):
        loss, grads = jax.value_and_grad(partial(critic_objective, method))(state.critic_params, rows)
        state, grad_norm, finite = apply_critic_step(method, state, loss, grads)
    return state, Half({"value_loss": loss, "critic_grad_norm": grad_norm}, finite, finite)


def minibatch_step(
    method: Method, state: TrainState, rows: Minibatch, policy_learns: Bool[Array, ""]
) -> tuple[TrainState, Report]:
    """Take one step of policy and critic: a pure function, whoever chooses the rows.

    Args:
        method: what a step does.
        state: before the step.
        rows: what it learns from.
        policy_learns: false once the policy has gone far enough in this update, or while the critic warms up;
            its half of the report is then zeros, neither finite nor applied.
    """

    def skip(state: TrainState) -> tuple[TrainState, Half]:
        shapes = jax.eval_shape(partial(policy_step, method), state, rows)[1]
        return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    state, policy = jax.lax.cond(policy_learns, lambda s: policy_step(method, s, rows), skip, state)
    if method.value is None:
        return state, Report(policy, None)
    state, critic = critic_step(method, state, rows)
    return state, Report(policy, critic)
