"""PPO's two losses, one point a chunk, and what is worth knowing about them.

Every function takes ``weight``, 1 for a point that counts and 0 for padding; padding must hold finite
numbers.
"""

from __future__ import annotations

import jax.numpy as jnp

from pirl_jax.typing import Array, Bool, Float, typed

MAX_LOG_RATIO = 20.0
"""Beyond it one outlier would overflow, and turn the whole minibatch's gradient into NaN."""


@typed
def weighted_mean(x: Float[Array, " B"], weight: Float[Array, " B"]) -> Float[Array, ""]:
    """Mean over the points that count; 0 when none does."""
    return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1.0)


@typed
def chunk_log_prob(log_prob: Float[Array, "B H"], step_mask: Bool[Array, "B H"]) -> Float[Array, " B"]:
    """Log-density of what was executed: the sum over the chunk's executed steps (πRL, chunk level)."""
    return jnp.sum(jnp.where(step_mask, log_prob, 0.0), axis=-1)


@typed
def policy_loss(
    log_prob: Float[Array, " B"],
    old_log_prob: Float[Array, " B"],
    advantages: Float[Array, " B"],
    weight: Float[Array, " B"],
    clip_ratio: float,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """PPO's clipped surrogate -E[min(ρA, clip(ρ, 1-ε, 1+ε)A)], ρ = π/π_old (Schulman et al. 2017, eq. 7).

    Returns:
        The loss, and ``approx_kl`` (the k3 estimate E[ρ - 1 - log ρ] of KL(π_old ‖ π), Schulman 2020),
        ``clip_fraction`` and ``ratio_mean``.
    """
    log_ratio = jnp.clip(log_prob - old_log_prob, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_ratio, 1.0 + clip_ratio)
    surrogate = jnp.minimum(ratio * advantages, clipped * advantages)
    metrics = {
        "approx_kl": weighted_mean(jnp.expm1(log_ratio) - log_ratio, weight),
        "clip_fraction": weighted_mean((jnp.abs(ratio - 1.0) > clip_ratio).astype(ratio.dtype), weight),
        "ratio_mean": weighted_mean(ratio, weight),
    }
    return -weighted_mean(surrogate, weight), metrics


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
) -> Float[Array, ""]:
    """E[max(huber(V), huber(V_clip))], V_clip within ``value_clip`` of the value at collection (πRL)."""
    clipped = old_values + jnp.clip(values - old_values, -value_clip, value_clip)
    worse = jnp.maximum(huber(values - targets, huber_delta), huber(clipped - targets, huber_delta))
    return weighted_mean(worse, weight)


@typed
def explained_variance(
    values: Float[Array, " B"], targets: Float[Array, " B"], weight: Float[Array, " B"]
) -> Float[Array, ""]:
    """1 - Var(target - V) / Var(target); 0 when the targets do not vary."""

    def variance(x):
        return weighted_mean((x - weighted_mean(x, weight)) ** 2, weight)

    total = variance(targets)
    return jnp.where(total > 0, 1.0 - variance(targets - values) / jnp.where(total > 0, total, 1.0), 0.0)
