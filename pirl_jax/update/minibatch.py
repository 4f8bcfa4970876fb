"""One minibatch step: policy and critic, each with an objective, a gradient and AdamW of its own."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pirl_jax.likelihood import flow, gripper
from pirl_jax.likelihood.stochastic import Observed
from pirl_jax.optim import clip_by_global_norm, descend, select, warmup
from pirl_jax.typing import Array, Bool, Float, Metrics, Params, PRNGKeyArray
from pirl_jax.update import losses
from pirl_jax.update.batch import Batch
from pirl_jax.update.critic_steps import apply_critic_step
from pirl_jax.update.demonstrations import Demonstrations, drawn_loss
from pirl_jax.update.method import Method
from pirl_jax.update.state import TrainState, adamw, trained_leaves


class FixedPolicies(NamedTuple):
    """What the policies that stay fixed during an update say of each point."""

    proximal: Float[Array, "B H"]
    """Log-density of each chunk step under the policy that ratios are taken to."""
    reference: flow.Distribution | None
    """Distributions of the noised steps under the policy that the run began with."""


class Draw(NamedTuple):
    """The demonstrations of one step."""

    demonstrations: Demonstrations
    key: PRNGKeyArray
    """Draws the frames, and the loss's own noise and times."""
    coef: Float[Array, ""]
    """Weight of their loss."""


class Minibatch(NamedTuple):
    """The rows of one step."""

    points: Batch
    fixed: FixedPolicies
    weight: Float[Array, " B"]
    """1 for a point that counts and 0 for a repeated one that fills the shape."""
    draw: Draw | None = None


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


def observed(points: Batch) -> Observed:
    """Return the observations of a batch's points."""
    return Observed(points.features, points.proprio, points.domain_id)


def distribution(method: Method, params: Params, points: Batch) -> flow.Distribution:
    """Return what the points' noised steps are drawn from under the policy of these parameters."""
    return method.policy.distribution(
        params, observed(points), points.latents, points.denoise_step, points.level
    )


def policy_objective(method: Method, params: Params, rows: Minibatch) -> tuple[Float[Array, ""], Metrics]:
    """Return the loss of the policy: PPO's, and what the recipe adds to it (``ObjectiveConfig``)."""
    config, points, weight = method.objective, rows.points, rows.weight
    chain = method.policy.chain
    current = distribution(method, params, points)
    loss, metrics = losses.policy_loss(
        flow.log_density(chain, current, points.latents),
        rows.fixed.proximal,
        points.old_log_prob,
        points.advantages,
        points.step_mask,
        weight,
        config,
    )
    if rows.fixed.reference is not None:
        divergence = flow.kl(chain, current, rows.fixed.reference, points.latents)
        chunks = losses.over_steps(divergence, points.step_mask)
        kl = losses.weighted_mean(losses.by_share(chunks, points.share), weight)
        loss, metrics = loss + config.reference_kl_coef * kl, metrics | {"reference_kl": kl}
    entropy = flow.entropy(chain, current.std, points.step_mask.shape[1])
    entropy = losses.over_steps(entropy, points.step_mask)
    metrics |= {"entropy": losses.weighted_mean(entropy, weight)}
    if config.entropy_coef:
        numbers = current.std[0].size * jnp.maximum(points.step_mask.sum(-1), 1)
        bonus = losses.by_share(entropy / numbers, points.share)
        loss -= config.entropy_coef * losses.weighted_mean(bonus, weight)
    if current.gripper_logits is not None:
        outcome = flow.drawn_grippers(chain, points.latents)
        coins = gripper.entropy(current.gripper_logits, outcome, chain.noise)
        coins = losses.weighted_mean(losses.over_steps(coins, points.step_mask), weight)
        metrics |= {"gripper_entropy": coins}
    if rows.draw is not None:
        assert method.supervised_loss is not None
        drawn = rows.draw.demonstrations, rows.draw.key
        plain = drawn_loss(method.supervised_loss, method.demonstrations.batch_size, params, *drawn)
        loss, metrics = loss + rows.draw.coef * plain, metrics | {"demonstrations_loss": plain}
    return loss, metrics


def critic_objective(method: Method, params: Params, rows: Minibatch) -> Float[Array, ""]:
    """Return the loss of the critic (``CriticConfig``)."""
    config, points = method.critic, rows.points
    assert method.value is not None
    assert points.critic_input is not None
    return config.value_coef * losses.value_loss(
        method.value(params, points.critic_input, points.proprio),
        points.old_values,
        points.value_targets,
        rows.weight,
        config.value_clip,
        config.huber_delta,
        points.share,
    )


def policy_step(method: Method, state: TrainState, rows: Minibatch) -> tuple[TrainState, Half]:
    """Move the policy, unless loss or gradient is not finite or the approximate KL exceeds ``target_kl``."""
    optimizer = method.optimizer
    trained = trained_leaves(state.params, method.group)

    def objective(params: Params) -> tuple[Float[Array, ""], Metrics]:
        if trained is not None:
            params = jax.tree.map(lambda p, moves: p if moves else jax.lax.stop_gradient(p), params, trained)
        return policy_objective(method, params, rows)

    with jax.named_scope("policy_step"):
        (loss, metrics), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
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
