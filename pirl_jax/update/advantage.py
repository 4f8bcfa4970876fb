"""Advantages: generalised advantage estimation over chunks, or relative to a group of episodes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pirl_jax.typing import Array, Bool, Float, Int, typed


@typed
def gae(
    rewards: Float[Array, "E T"],
    values: Float[Array, "E T+1"],
    lengths: Int[Array, " E"],
    terminated: Bool[Array, " E"],
    gamma: float,
    gae_lambda: float,
) -> tuple[Float[Array, "E T"], Float[Array, "E T"]]:
    """Compute advantages and value targets of padded episodes (Schulman et al. 2016, eq. 16).

    A step is a chunk. With n = lengths[e], for t = n-1 … 0:

        δ_t = r_t + γ·V_{t+1} - V_t         V_n = 0 if the episode terminated, else values[e, n]
        A_t = δ_t + γλ·A_{t+1}              A_n = 0
        target_t = A_t + V_t

    So truncation bootstraps from the value of the final observation, termination does not.

    Args:
        rewards: summed over each chunk; anything in t ≥ n.
        values: V of each observation; ``values[e, n]`` is the final observation's, anything after it.
        lengths: chunks in each episode; 0 for an empty row.
        terminated: the episode ended by itself (success or failure), not by a limit.
        gamma: discount per chunk.
        gae_lambda: λ.

    Returns:
        Advantages and value targets, zero in t ≥ n.
    """
    T = rewards.shape[1]
    steps = jnp.arange(T)
    valid = steps < lengths[:, None]
    is_last = steps == lengths[:, None] - 1
    # Selected, not multiplied: padding may hold anything, NaN included.
    bootstraps = ~(is_last & terminated[:, None])
    current = jnp.where(valid, values[:, :-1], 0.0)
    following = jnp.where(valid & bootstraps, values[:, 1:], 0.0)
    deltas = jnp.where(valid, rewards, 0.0) + gamma * following - current

    def step(advantage, inputs):
        delta, is_valid = inputs
        advantage = jnp.where(is_valid, delta + gamma * gae_lambda * advantage, 0.0)
        return advantage, advantage

    _, advantages = jax.lax.scan(step, jnp.zeros_like(deltas[:, 0]), (deltas.T, valid.T), reverse=True)
    return advantages.T, advantages.T + current


@typed
def group_relative(returns: Float[Array, "groups members"], min_std: float) -> Float[Array, "groups members"]:
    """Compute GRPO's advantages: (R - mean)/std within each group (Shao et al. 2024, §4.1.2).

    Args:
        returns: of the episodes of each group.
        min_std: what is divided by at least, so that rounding among equal returns stays rounding.
    """
    mean = jnp.mean(returns, axis=1, keepdims=True)
    return (returns - mean) / jnp.maximum(jnp.std(returns, axis=1, keepdims=True), min_std)


@typed
def normalize(
    advantages: Float[Array, "*dims"], weight: Float[Array, "*dims"], min_std: float
) -> Float[Array, "*dims"]:
    """Give advantages mean 0 and standard deviation 1 under the weights with which the loss sums them.

    Args:
        advantages: anything where the weight is 0, and 0 there afterwards.
        weight: at least 0.
        min_std: what is divided by at least.
    """
    total = jnp.sum(weight)
    share = jnp.where(total > 0, weight / total, 0.0)
    mean = jnp.sum(jnp.where(weight > 0, share * advantages, 0.0))
    centered = jnp.where(weight > 0, advantages - mean, 0.0)
    std = jnp.sqrt(jnp.sum(share * centered**2))
    return centered / jnp.maximum(std, min_std)
