"""PPO's two losses, one point a chunk, and what is worth knowing about them.

Every function takes ``weight``, 1 for a point that counts and 0 for padding; padding must hold finite
numbers. A chunk of which ``step_mask`` counts no step, since the policy that chose it is not known any more,
is none of the policy's points: it is in no sum and in no denominator of its loss and metrics, while the
critic's loss has it. ``policy_loss`` takes ``total`` besides where the points are a part of a minibatch: it
is then that part's share of its mean, and the shares of all parts add up to it, gradients included.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from pirl_jax.recipe import ObjectiveConfig
from pirl_jax.typing import Array, Bool, Float, Int, typed

POLICY_METRICS = ("approx_kl", "clip_fraction", "ratio_mean", "behaviour_weight")

MAX_LOG_RATIO = 20.0
"""Beyond it one outlier would overflow, and turn the whole minibatch's gradient into NaN."""


class Total(NamedTuple):
    """Sums of the weights over a whole minibatch, of the policy's points."""

    chunks: Float[Array, ""]
    ratios: Float[Array, ""]
    """Of what ratios are taken of: chunks, or executed steps (``ObjectiveConfig.aggregation``)."""


def total(step_mask: Bool[Array, "B H"], weight: Float[Array, " B"], aggregation: str) -> Total:
    """Return the sums over a minibatch."""
    return Total(*(jnp.sum(_units(step_mask, weight, each)) for each in ("chunk", aggregation)))


@typed
def weighted_mean(
    x: Float[Array, "*B"], weight: Float[Array, "*B"], total: Float[Array, ""] | None = None
) -> Float[Array, ""]:
    """Mean over the points that count; 0 when none does. With ``total``, their share of a larger mean."""
    return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight) if total is None else total, 1.0)


@typed
def equal_shares(counts: Int[np.ndarray, " E"]) -> Float[np.ndarray, " E"]:
    """Weights of episodes' members with which every episode counts the same: Σn/(E·n_e).

    The mean of weight·x over all members is then the mean over episodes of the mean of x in each.

    Args:
        counts: n_e, members (chunks, or executed steps) of each episode; at least 1.
    """
    return (counts.mean() / counts).astype(np.float32)


@typed
def over_steps(values: Float[Array, "B H"], step_mask: Bool[Array, "B H"]) -> Float[Array, " B"]:
    """Sum of what each chunk step contributes, over those that count."""
    return jnp.sum(jnp.where(step_mask, values, 0.0), axis=-1)


@typed
def policy_loss(
    log_prob: Float[Array, "B H"],
    proximal: Float[Array, "B H"],
    behaviour: Float[Array, "B H"],
    advantages: Float[Array, " B"],
    step_mask: Bool[Array, "B H"],
    weight: Float[Array, " B"],
    objective: ObjectiveConfig,
    total: Total | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Decoupled PPO's clipped surrogate (Hilton et al. 2022, eq. 7; Schulman et al. 2017, eq. 7):

        -E[w·min(ρA, clip(ρ, 1-ε, 1+ε)A)],   ρ = π/π_proximal,   w = min(π_proximal/π_behaviour, cap)

    With π_proximal = π_behaviour it is PPO. ``objective.aggregation`` says what π is the density of: a
    chunk's steps together, or each of them given those before it (then the mean is over steps, all of them
    with their chunk's advantage); steps that decided nothing of what was executed do not count.

    Where A < 0 the clipped surrogate has no bound: ρA falls with ρ, and one chunk that has become twenty
    times likelier decides a minibatch. ``objective.dual_clip`` = c ends it at cA (Ye et al. 2020, eq. 5).

    Args:
        log_prob: of each chunk step under the policy being trained.
        proximal: under the policy that the update stays near to.
        behaviour: under the policy that acted.
        advantages: of the chunks.
        step_mask: chunk steps that count (``modes.scored_steps``); none of a chunk that is left out.
        weight: 1 for a point that counts.
        objective: ``aggregation``, ``clip_ratio``, ``dual_clip`` and ``max_behaviour_weight``.
        total: of the minibatch that the points are a part of; None: they are all of it.

    Returns:
        The loss, and ``approx_kl`` (of whole chunks: the k3 estimate E[w·(ρ - 1 - log ρ)] of
        KL(π_proximal ‖ π), Schulman 2020), ``clip_fraction`` (of ratios without a gradient because they were
        clipped), ``ratio_mean`` and ``behaviour_weight``.
    """
    units, whole = _units(step_mask, weight, objective.aggregation), total and total.ratios

    def log_ratio(numerator: Array, denominator: Array, aggregation: str) -> Array:
        steps = jnp.where(step_mask, numerator - denominator, 0.0)
        of_units = steps if aggregation == "action" else jnp.sum(steps, axis=-1, keepdims=True)
        return jnp.clip(of_units, -MAX_LOG_RATIO, MAX_LOG_RATIO)

    def behaviour_weight(aggregation: str) -> Array:
        ratio = jnp.exp(log_ratio(proximal, behaviour, aggregation))
        return jnp.minimum(ratio, objective.max_behaviour_weight)

    low, high = 1.0 - objective.clip_ratio, 1.0 + objective.clip_ratio
    ratio = jnp.exp(log_ratio(log_prob, proximal, objective.aggregation))
    gain = advantages[:, None]
    surrogate = jnp.minimum(ratio * gain, jnp.clip(ratio, low, high) * gain)
    held_back = ((gain > 0) & (ratio > high)) | ((gain < 0) & (ratio < low))
    if objective.dual_clip is not None:
        surrogate = jnp.where(gain < 0, jnp.maximum(surrogate, objective.dual_clip * gain), surrogate)
        held_back |= (gain < 0) & (ratio > objective.dual_clip)
    importance = behaviour_weight(objective.aggregation)
    chunks = log_ratio(log_prob, proximal, "chunk")
    kl = behaviour_weight("chunk") * (jnp.expm1(chunks) - chunks)
    values = (
        weighted_mean(kl, _units(step_mask, weight, "chunk"), total and total.chunks),
        *(weighted_mean(x, units, whole) for x in (held_back.astype(ratio.dtype), ratio, importance)),
    )
    metrics: dict[str, Array] = dict(zip(POLICY_METRICS, values, strict=True))
    return -weighted_mean(importance * surrogate, units, whole), metrics


def _units(step_mask: Array, weight: Array, aggregation: str) -> Array:
    """Weights of what ratios are taken of: [B, 1] chunks or [B, H] actions."""
    counts = step_mask if aggregation == "action" else jnp.any(step_mask, axis=-1, keepdims=True)
    return weight[:, None] * counts


def by_share(values: Array, share: Array | None) -> Array:
    """Each point's value times its share of a mean over chunks (``loss_weighting``); None: 1."""
    return values if share is None else values * share


@typed
def huber(error: Float[Array, " B"], delta: float) -> Float[Array, " B"]:
    """½e² within ±δ, δ(|e| - ½δ) beyond."""
    size = jnp.abs(error)
    return jnp.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta))


@typed
def value_loss(
    values: Float[Array, " B"],
    old_values: Float[Array, " B"],
    targets: Float[Array, " B"],
    weight: Float[Array, " B"],
    value_clip: float,
    huber_delta: float,
    share: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """E[share·max(huber(V), huber(V_clip))], V_clip within ``value_clip`` of the old value (πRL)."""
    clipped = old_values + jnp.clip(values - old_values, -value_clip, value_clip)
    worse = jnp.maximum(huber(values - targets, huber_delta), huber(clipped - targets, huber_delta))
    return weighted_mean(by_share(worse, share), weight)


@typed
def explained_variance(
    values: Float[Array, " B"], targets: Float[Array, " B"], weight: Float[Array, " B"]
) -> Float[Array, ""]:
    """1 - Var(target - V) / Var(target); 0 when the targets do not vary."""

    def variance(x):
        return weighted_mean((x - weighted_mean(x, weight)) ** 2, weight)

    total = variance(targets)
    return jnp.where(total > 0, 1.0 - variance(targets - values) / jnp.where(total > 0, total, 1.0), 0.0)
