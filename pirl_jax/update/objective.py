"""The objectives of policy and critic on a minibatch, or on a part of one."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from pirl_jax.likelihood import flow, gripper
from pirl_jax.likelihood.stochastic import Observed
from pirl_jax.typing import Array, Float, Metrics, Params, PRNGKeyArray
from pirl_jax.update import losses
from pirl_jax.update.batch import Batch
from pirl_jax.update.demonstrations import Demonstrations, drawn_loss
from pirl_jax.update.method import Method


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
    """The rows of one step, or a part of them."""

    points: Batch
    fixed: FixedPolicies
    weight: Float[Array, " B"]
    """1 for a point and 0 for a repeated one that fills the shape."""


class CriticRows(NamedTuple):
    """What the critic's half of a step sees of the same rows."""

    critic_input: Float[Array, "B D"]
    proprio: Float[Array, "B P"]
    old_values: Float[Array, " B"]
    value_targets: Float[Array, " B"]
    share: Float[Array, " B"] | None
    weight: Float[Array, " B"]


def observed(points: Batch) -> Observed:
    """Return the observations of a batch's points."""
    return Observed(points.features, points.proprio, points.domain_id)


def distribution(method: Method, params: Params, points: Batch) -> flow.Distribution:
    """Return what the points' noised steps are drawn from under the policy of these parameters."""
    return method.policy.distribution(
        params, observed(points), points.latents, points.denoise_step, points.level
    )


def policy_objective(
    method: Method, params: Params, rows: Minibatch, total: losses.Total
) -> tuple[Float[Array, ""], Metrics]:
    """Return the loss of the policy: PPO's, and what the recipe adds to it (``ObjectiveConfig``).

    Args:
        method: what a step does.
        params: trainable ones.
        rows: a minibatch or a part of it, whose share of loss and metrics is returned.
        total: of the minibatch.
    """
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
        total,
    )

    share = jnp.ones_like(weight) if points.policy_share is None else points.policy_share

    def mean(values: Float[Array, "B H"]) -> Float[Array, ""]:
        return losses.weighted_mean(losses.over_steps(values, points.step_mask), weight, total.chunks)

    if rows.fixed.reference is not None:
        divergence = flow.kl(chain, current, rows.fixed.reference, points.latents)
        kl = mean(divergence * share[:, None])
        loss, metrics = loss + config.reference_kl_coef * kl, metrics | {"reference_kl": kl}
    entropy = flow.entropy(chain, current.std, points.step_mask.shape[1])
    metrics |= {"entropy": mean(entropy)}
    if config.entropy_coef:
        numbers = current.std[0].size * jnp.maximum(points.step_mask.sum(-1), 1)
        loss -= config.entropy_coef * mean(entropy * (share / numbers)[:, None])
    if current.gripper_logits is not None:
        outcome = flow.drawn_grippers(chain, points.latents)
        metrics |= {"gripper_entropy": mean(gripper.entropy(current.gripper_logits, outcome, chain.noise))}
    return loss, metrics


def imitation_objective(method: Method, params: Params, draw: Draw) -> tuple[Float[Array, ""], Metrics]:
    """Return the weighted loss of a step's demonstrations."""
    assert method.supervised_loss is not None
    drawn = draw.demonstrations, draw.key, method.placement
    plain = drawn_loss(method.supervised_loss, method.demonstrations.batch_size, params, *drawn)
    return draw.coef * plain, {"demonstrations_loss": plain}


def critic_objective(method: Method, params: Params, rows: CriticRows) -> Float[Array, ""]:
    """Return the loss of the critic (``CriticConfig``)."""
    config = method.critic
    assert method.value is not None
    return config.value_coef * losses.value_loss(
        method.value(params, rows.critic_input, rows.proprio),
        rows.old_values,
        rows.value_targets,
        rows.weight,
        config.value_clip,
        config.huber_delta,
        rows.share,
    )
