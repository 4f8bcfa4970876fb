"""The denoising chain of ``noise.py`` in JAX: sampling it, and the likelihood of what it sampled.

The policy enters as one or two callables, with everything but the chain bound:

    predict(x_t: Float[B H A], t: Float[B]) -> â: Float[B H A]
    spread(t: Float[B]) -> log factor on the noise of each channel: Float[B A]

The first is the flow head: it returns the clean action â = f_θ(x_t, t, o) before any post-processing, in
float32. The second is the noise head of a mode that learns its standard deviations; others have none.

A chunk has M noised steps (one, or all K) in a row. ``denoise_step`` is the index k of the first of them,
``level`` the noise level of each row (``NoiseConfig.level`` if not given), and its latents are those of
``noise.num_latents``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.noise import MODES, Step, anchored_step, correlation_factor
from pirl_jax.recipe import NoiseConfig
from pirl_jax.typing import Array, Float, Int, PRNGKeyArray, typed

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

Predict = Callable[[Array, Array], Array]
Spread = Callable[[Array], Array]


class Chunk(NamedTuple):
    """A sampled action chunk and what the learner needs to score it again."""

    action: Float[Array, "B H A"]
    latents: Float[Array, "B L H A"]
    log_prob: Float[Array, "B H"]


class Gaussians(NamedTuple):
    """What a chunk's noised steps are drawn from under some parameters, each given its stored input.

    Step m is N(mean_m, (std_m)²·L·Lᵀ over the H steps) for each of the c scored channels.
    """

    mean: Float[Array, "B M H c"]
    std: Float[Array, "B M c"]


def _anchored(K: int, dtype: jnp.dtype) -> Step:
    """The chain's coefficients without noise; entry k - 1 belongs to step k."""
    return Step(*(jnp.asarray(x, dtype) for x in anchored_step(np.arange(1, K + 1), K)))


def _noised(noise: NoiseConfig, K: int, steps: Array, level: Array) -> Step:
    """The coefficients [B, M] of noised ``steps`` [B, M] at the rows' ``level`` [B]."""
    table = MODES[noise.mode].coefficients(anchored_step(np.arange(1, K + 1), K), K, level[:, None])
    shape = (len(level), K)
    columns = (jnp.broadcast_to(jnp.asarray(x, level.dtype), shape) for x in table)
    return Step(*(jnp.take_along_axis(column, steps - 1, axis=1) for column in columns))


def _noised_steps(noise: NoiseConfig, K: int, denoise_step: Array) -> Int[Array, "B M"]:
    return denoise_step[:, None] - jnp.arange(MODES[noise.mode].num_noised(K))


def _levels(noise: NoiseConfig, level: Array | None, batch: int, dtype: jnp.dtype) -> Array:
    return jnp.full(batch, noise.level, dtype) if level is None else level.astype(dtype)


def _per_chunk(values: Array) -> Array:
    return values[..., None, None]


def _mean(noise_coef: Array, action_coef: Array, eps0: Array, action: Array) -> Array:
    """c_noise·ε₀ + c_action·â, in the order of LeRobot's sampler (``x1 * t + action * (1 - t)``)."""
    return eps0 * _per_chunk(noise_coef) + action * _per_chunk(action_coef)


def _float_dtype(x: Array) -> jnp.dtype:
    """At least float32: at σ = 1 cm, bfloat16 rounding alone is a log-ratio of .6."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _over_steps(matrix: np.ndarray, x: Array) -> Array:
    """``matrix`` [H, H] applied to the steps of ``x`` [..., H, C]; an accelerator's default would be TF32."""
    return jnp.einsum("hj,...jc->...hc", jnp.asarray(matrix, x.dtype), x, precision="highest")


@typed
def stds(
    denoise_step: Int[Array, " B"],
    level: Float[Array, " B"],
    noise: NoiseConfig,
    K: int,
    scale: np.ndarray,
    spread: Spread | None = None,
) -> Float[Array, "B M c"]:
    """Standard deviation of each noised step on the scored channels, learned or not.

    Args:
        denoise_step: index k of the (first) noised step.
        level: of each row.
        noise: the mode.
        K: denoising steps of the policy.
        scale: factor on the level for each channel, zero without noise (``noise.channel_scale``).
        spread: the noise head, for a mode that learns.
    """
    scored = np.flatnonzero(scale)
    coefs = _noised(noise, K, _noised_steps(noise, K, denoise_step), level)
    std = coefs.std[..., None] * jnp.asarray(scale[scored], level.dtype)
    if not MODES[noise.mode].learned_std:
        return std
    if spread is None:
        raise ValueError(f"noise.mode={noise.mode!r} learns its standard deviation: give its noise head.")
    return std * jnp.exp(jax.vmap(spread, in_axes=1, out_axes=1)(coefs.t)[..., scored]).astype(std.dtype)


@typed
def gaussians(
    predict: Predict,
    latents: Float[Array, "B L H A"],
    denoise_step: Int[Array, " B"],
    noise: NoiseConfig,
    K: int,
    scale: np.ndarray,
    level: Float[Array, " B"] | None = None,
    spread: Spread | None = None,
) -> Gaussians:
    """The noised steps' distributions under the current policy, from the latents of the policy that sampled.

    Each step is taken from its stored input x_t: with one noised step (``replay=last``) that is one head
    call, whose gradient leaves out what the parameters did to x_t; with all of them it is K calls, and as
    every input is part of what was sampled, the exact gradient. ``replay=full``: the one noised step given ε₀
    alone, by K head calls. Of many calls the scan body is rematerialised, so memory does not grow with K
    beyond the chain's states.

    Args:
        predict: the flow head, see the module's docstring.
        latents: ``noise.num_latents`` states of the chain.
        denoise_step: index k of the (first) noised step, 1 ≤ k ≤ K.
        noise: mode, replay and level.
        K: denoising steps of the policy.
        scale: factor on the level for each channel, zero without noise (``noise.channel_scale``).
        level: of each row.
        spread: the noise head, for a mode that learns.

    Returns:
        In float32, or float64 if the latents are.
    """
    dtype = _float_dtype(latents)
    latents = latents.astype(dtype)
    level = _levels(noise, level, len(latents), dtype)
    steps = _noised_steps(noise, K, denoise_step)
    coefs = _noised(noise, K, steps, level)
    eps0 = latents[:, 0]
    if noise.replay == "full":
        clean = _replayed(predict, eps0, denoise_step, K)[:, None]
    else:
        inputs = jnp.moveaxis(latents[:, -steps.shape[1] - 1 : -1], 1, 0), coefs.t.T
        clean = jnp.moveaxis(_each(lambda x_t, t: predict(x_t, t).astype(dtype), *inputs), 0, 1)
    mean = _mean(coefs.noise_coef, coefs.action_coef, eps0[:, None], clean)[..., np.flatnonzero(scale)]
    return Gaussians(mean, stds(denoise_step, level, noise, K, scale, spread))


def _each(function: Callable[..., Array], *inputs: Array) -> Array:
    """``function`` of each entry of the leading axis; of many, in turn, and again in the backward pass."""
    if len(inputs[0]) == 1:
        return function(*(x[0] for x in inputs))[None]
    return jax.lax.map(jax.checkpoint(lambda entry: function(*entry)), inputs)


def _replayed(predict: Predict, eps0: Array, denoise_step: Array, K: int) -> Array:
    """The clean action of the noised step, from ε₀ by the zero-noise chain before it."""
    chain = _anchored(K, eps0.dtype)

    @jax.checkpoint
    def step(carry, k):
        x, clean = carry
        action = predict(x, jnp.full(x.shape[0], chain.t[k - 1])).astype(x.dtype)
        clean = jnp.where(_per_chunk(denoise_step == k), action, clean)
        return (_mean(chain.noise_coef[k - 1], chain.action_coef[k - 1], eps0, action), clean), None

    (_, clean), _ = jax.lax.scan(step, (eps0, jnp.zeros_like(eps0)), jnp.arange(K, 0, -1))
    return clean


@typed
def log_density(
    steps: Gaussians, latents: Float[Array, "B L H A"], noise: NoiseConfig, scale: np.ndarray
) -> Float[Array, "B H"]:
    """Log-density of the noised steps' stored outcomes, for each chunk step given those before.

    The sum over the noised steps (their joint density given ε₀) and over scored channels; summed over the
    steps of an executed prefix it is the log-likelihood of what was executed.

    Args:
        steps: their distributions (``gaussians``).
        latents: ``noise.num_latents`` states of the chain.
        noise: mode and correlation.
        scale: zero for channels without noise.
    """
    M = steps.mean.shape[1]
    outcome = latents[:, -M:].astype(steps.mean.dtype)[..., np.flatnonzero(scale)]
    factor = correlation_factor(noise, outcome.shape[2])
    whitened = _over_steps(np.linalg.inv(factor), (outcome - steps.mean) / steps.std[:, :, None])
    return -0.5 * jnp.sum(whitened**2, axis=(1, 3)) - _normalizer(steps.std, factor)


def _normalizer(std: Array, factor: np.ndarray) -> Float[Array, "B H"]:
    """Σ over noised steps and channels of log(std·L_hh) + ½ log 2π."""
    _, M, C = std.shape
    constant = M * C * (np.log(np.diag(factor)) + _HALF_LOG_2PI)
    return jnp.sum(jnp.log(std), axis=(1, 2))[:, None] + jnp.asarray(constant, std.dtype)


def log_prob(
    predict: Predict,
    latents: Float[Array, "B L H A"],
    denoise_step: Int[Array, " B"],
    noise: NoiseConfig,
    K: int,
    scale: np.ndarray,
    level: Float[Array, " B"] | None = None,
    spread: Spread | None = None,
) -> Float[Array, "B H"]:
    """``log_density`` of ``gaussians``: sum over executed steps for the chunk's log-likelihood."""
    steps = gaussians(predict, latents, denoise_step, noise, K, scale, level, spread)
    return log_density(steps, latents, noise, scale)


@typed
def kl(steps: Gaussians, other: Gaussians, noise: NoiseConfig) -> Float[Array, "B H"]:
    """Σ over noised steps of KL(steps ‖ other) in closed form, by chunk step; both share L.

    In the coordinates L⁻¹x the chunk steps are independent, N(L⁻¹μ, σ²) and N(L⁻¹ν, τ²), and the prefix of a
    chunk stays one: log(τ/σ) + (σ² + (L⁻¹(μ - ν))²)/2τ² - ½ for each, and the sum over the steps of an
    executed prefix is the divergence of that prefix. With one noised step this is exact given its input; the
    sum over a chain's steps is its divergence in the mean over chains that ``steps`` itself would draw.
    """
    shift = _over_steps(
        np.linalg.inv(correlation_factor(noise, steps.mean.shape[2])),
        (steps.mean - other.mean) / other.std[:, :, None],
    )
    # ½(r² - 1) - log r of r = σ/τ, without cancellation near r = 1.
    log_r = jnp.log(steps.std / other.std)
    widths = 0.5 * jnp.expm1(2 * log_r) - log_r
    return jnp.sum(0.5 * shift**2 + widths[:, :, None], axis=(1, 3))


@typed
def entropy(std: Float[Array, "B M c"], noise: NoiseConfig, H: int) -> Float[Array, "B H"]:
    """Entropy of the noise of each chunk step given those before it, in nats: Σ log(σ·L_hh) + ½ log 2πe."""
    return _normalizer(std, correlation_factor(noise, H)) + 0.5 * std.shape[1] * std.shape[2]


@typed
def sample(
    predict: Predict,
    eps0: Float[Array, "B H A"],
    key: PRNGKeyArray,
    denoise_step: Int[Array, " B"],
    noise: NoiseConfig,
    K: int,
    scale: np.ndarray,
    level: Float[Array, " B"] | None = None,
    spread: Spread | None = None,
) -> Chunk:
    """Sample a chunk with its noised steps beginning at ``denoise_step``, channel by channel on ``scale``."""
    B, H, _ = eps0.shape
    scored, factor, chain = np.flatnonzero(scale), correlation_factor(noise, H), _anchored(K, eps0.dtype)
    level = _levels(noise, level, B, eps0.dtype)
    steps = _noised_steps(noise, K, denoise_step)
    coefs = _noised(noise, K, steps, level)
    std = stds(denoise_step, level, noise, K, scale, spread)
    rows, M = jnp.arange(B), steps.shape[1]

    def step(x, k):
        action = predict(x, jnp.full(B, chain.t[k - 1])).astype(x.dtype)
        m = jnp.clip(denoise_step - k, 0, M - 1)
        noised = _mean(coefs.noise_coef[rows, m], coefs.action_coef[rows, m], eps0, action)
        anchored = _mean(chain.noise_coef[k - 1], chain.action_coef[k - 1], eps0, action)
        drawn = jax.random.normal(jax.random.fold_in(key, k), (B, H, len(scored)), x.dtype)
        outcome = noised.at[..., scored].add(_over_steps(factor, drawn) * std[rows, m][:, None])
        outcome = jnp.where(_per_chunk(steps[rows, m] == k), outcome, anchored)
        return outcome, (noised[..., scored], outcome)

    action, (means, outcomes) = jax.lax.scan(step, eps0, jnp.arange(K, 0, -1))
    states = jnp.concatenate([eps0[None], outcomes])  # at times 1 … 0: entry K - k is step k's input
    noised_from = K - denoise_step[:, None]
    path = states[noised_from + jnp.arange(M + 1), rows[:, None]]
    latents = path if MODES[noise.mode].every_step else jnp.concatenate([eps0[:, None], path], axis=1)
    drawn_from = Gaussians(means[noised_from + jnp.arange(M), rows[:, None]], std)
    return Chunk(action, latents, log_density(drawn_from, latents, noise, scale))


@typed
def deterministic(predict: Predict, eps0: Float[Array, "B H A"], K: int) -> Float[Array, "B H A"]:
    """LeRobot's own sampler: zero noise at every step."""
    return _anchored_from(predict, eps0, eps0, jnp.full(len(eps0), K), K)


@typed
def finish(
    predict: Predict,
    latents: Float[Array, "B L H A"],
    denoise_step: Int[Array, " B"],
    noise: NoiseConfig,
    K: int,
) -> Float[Array, "B H A"]:
    """Go on from the last noised step's outcome without noise: the action that was executed."""
    remaining = denoise_step - MODES[noise.mode].num_noised(K)
    return _anchored_from(predict, latents[:, 0], latents[:, -1], remaining, K)


def _anchored_from(predict: Predict, eps0: Array, x: Array, remaining: Array, K: int) -> Array:
    """The zero-noise chain from ``x``, which has ``remaining`` steps to go."""
    chain = _anchored(K, x.dtype)

    def step(x, k):
        action = predict(x, jnp.full(x.shape[0], chain.t[k - 1])).astype(x.dtype)
        following = _mean(chain.noise_coef[k - 1], chain.action_coef[k - 1], eps0, action)
        return jnp.where(_per_chunk(k <= remaining), following, x), None

    return jax.lax.scan(step, x, jnp.arange(K, 0, -1))[0]
