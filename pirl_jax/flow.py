"""The denoising chain of ``noise.py`` in JAX: sampling it, and the likelihood of what it sampled.

The policy enters as one callable, the flow head with everything but the chain bound:

    predict(x_t: Float[B H A], t: Float[B]) -> Float[B H A]

It returns the clean action â = f_θ(x_t, t, o) before any post-processing, or with
``parametrization="velocity"`` the velocity v, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax import gripper
from pirl_jax.noise import MODES, Step, correlation_factor, noised_step, plain_step
from pirl_jax.recipe import NoiseConfig
from pirl_jax.typing import Array, Float, Int, PRNGKeyArray, typed

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

Predict = Callable[[Array, Array], Array]


class Chunk(NamedTuple):
    """A sampled action chunk and what the learner needs to score it again."""

    action: Float[Array, "B H A"]
    latents: Float[Array, "B L H A"]
    log_prob: Float[Array, "B H"]


class StepTable(NamedTuple):
    """The chain's coefficients by step index k (entry 0 is unused): every row of a batch has its own k."""

    t: Float[Array, " K+1"]
    noise_coef: Float[Array, " K+1"]
    action_coef: Float[Array, " K+1"]
    std: Float[Array, " K+1"]
    x_coef: Float[Array, " K+1"] | None
    """None for a data policy."""


def _table(steps: list[Step], dtype: jnp.dtype) -> StepTable:
    columns = np.array([(step.t, step.noise_coef, step.action_coef, step.std, step.x_coef) for step in steps])
    *table, x_coef = (jnp.asarray(column, dtype) for column in columns.T)
    return StepTable(*table, x_coef=x_coef if columns[:, -1].any() else None)


def _plain_table(K: int, dtype: jnp.dtype, parametrization: str) -> StepTable:
    return _table([plain_step(max(k, 1), K, parametrization) for k in range(K + 1)], dtype)


def _noised_table(noise: NoiseConfig, K: int, dtype: jnp.dtype, parametrization: str = "data") -> StepTable:
    noised = MODES[noise.mode].noised_steps(K)
    steps = [
        noised_step(noise, k, K, parametrization)
        if k in noised
        else plain_step(max(k, 1), K, parametrization)
        for k in range(K + 1)
    ]
    return _table(steps, dtype)


def _per_chunk(values: Array) -> Array:
    return values[..., None, None]


def _mean(table: StepTable, k: Array, eps0: Array, x_t: Array, predicted: Array) -> Array:
    """c_noise·ε₀ + c_action·f (+ c_x·x_t), in the order of LeRobot's ``x1 * t + action * (1 - t)``."""
    mean = eps0 * _per_chunk(table.noise_coef[k]) + predicted * _per_chunk(table.action_coef[k])
    return mean if table.x_coef is None else mean + x_t * _per_chunk(table.x_coef[k])


def _float_dtype(x: Array) -> jnp.dtype:
    """At least float32: at σ = 1 cm, bfloat16 rounding alone is a log-ratio of .6."""
    return jnp.promote_types(x.dtype, jnp.float32)


def gaussian_log_prob(
    x: Array, mean: Array, std: Array, scale: np.ndarray, factor: np.ndarray
) -> Float[Array, "B H"]:
    """Σ over scored channels c of log p(x_h | x_<h), x ~ N(mean, (std·scale_c)²·L·Lᵀ over the H steps).

    Args:
        x: ``[B, H, A]`` outcome.
        mean: ``[B, H, A]``.
        std: ``[B]``, positive.
        scale: ``[A]``, zero for channels that carry no noise (``noise.channel_scale``).
        factor: L, ``[H, H]``, lower triangular (``noise.correlation_factor``).
    """
    return -0.5 * jnp.sum(_whitened(x - mean, std, scale, factor) ** 2, axis=-1) - _normalizer(
        std, scale, factor
    )


def _whitened(residual: Array, std: Array, scale: np.ndarray, factor: np.ndarray) -> Array:
    """L⁻¹·residual/σ on the scored channels."""
    scored = np.flatnonzero(scale)
    stds = _per_chunk(std) * jnp.asarray(scale[scored], residual.dtype)
    return _over_steps(np.linalg.inv(factor), residual[..., scored] / stds)


def _normalizer(std: Array, scale: np.ndarray, factor: np.ndarray) -> Float[Array, "B H"]:
    """Σ over scored channels of log(std·scale_c·L_hh) + ½ log 2π."""
    scored = np.flatnonzero(scale)
    constant = np.log(scale[scored]).sum() + len(scored) * (np.log(np.diag(factor)) + _HALF_LOG_2PI)
    return len(scored) * jnp.log(std)[:, None] + jnp.asarray(constant, std.dtype)


def _over_steps(matrix: np.ndarray, x: Array) -> Array:
    """``matrix`` [H, H] applied to the steps of ``x`` [B, H, A]; an accelerator's default would be TF32."""
    return jnp.einsum("hj,bja->bha", jnp.asarray(matrix, x.dtype), x, precision="highest")


@typed
def step_mean(
    predict: Predict,
    latents: Float[Array, "B L H A"],
    denoise_step: Int[Array, " B"],
    noise: NoiseConfig,
    K: int,
    parametrization: str = "data",
) -> Float[Array, "B H A"]:
    """Mean of the noised step under the current policy, from the latents of the policy that sampled.

    ``replay=last``: given the stored x_t and ε₀: one head call, whose gradient leaves out what the parameters
    did to x_t. ``replay=full``: given ε₀: K head calls, the exact gradient of the chain; the scan body is
    rematerialised, so memory does not grow with K beyond the chain's states. Both have the same value while
    the parameters are those that sampled.

    Args:
        predict: the flow head, see the module's docstring.
        latents: ε₀, the noised step's input x_t and its output x_s.
        denoise_step: index k of the noised step, 1 ≤ k ≤ K.
        noise: mode, replay and level.
        K: denoising steps of the policy.
        parametrization: what ``predict`` returns, ``data`` or ``velocity``.

    Returns:
        In float32, or float64 if the latents are.
    """
    dtype = _float_dtype(latents)
    latents = latents.astype(dtype)
    eps0, x_t, x_s = latents[:, 0], latents[:, 1], latents[:, 2]
    table = _noised_table(noise, K, dtype, parametrization)
    if noise.replay == "last":
        return _mean(table, denoise_step, eps0, x_t, predict(x_t, table.t[denoise_step]).astype(dtype))
    plain = _plain_table(K, dtype, parametrization)
    return _replayed_mean(predict, eps0, x_s, denoise_step, table, plain, K)


@typed
def log_density(
    mean: Float[Array, "B H A"],
    latents: Float[Array, "B L H A"],
    denoise_step: Int[Array, " B"],
    noise: NoiseConfig,
    K: int,
    scale: np.ndarray,
    grippers: tuple[int, ...] = (),
) -> Float[Array, "B H"]:
    """Log-density of the noised step's outcome around ``mean``, for each chunk step given those before.

    Args:
        mean: of the noised step (``step_mean``).
        latents: ε₀, the noised step's input x_t and its output x_s.
        denoise_step: index k of the noised step.
        noise: mode, level and correlation.
        K: denoising steps of the policy.
        scale: factor on the level for each channel, zero without noise (``noise.channel_scale``).
        grippers: channels drawn as coins (``gripper.sampled_channels``).
    """
    std = _noised_table(noise, K, mean.dtype).std[denoise_step]
    factor = correlation_factor(noise, mean.shape[1])
    outcome = latents[:, 2].astype(mean.dtype)
    density = gaussian_log_prob(outcome, mean, std, scale, factor)
    return density + gripper.log_prob(mean, outcome, grippers, noise) if grippers else density


def log_prob(
    predict: Predict,
    latents: Float[Array, "B L H A"],
    denoise_step: Int[Array, " B"],
    noise: NoiseConfig,
    K: int,
    scale: np.ndarray,
    grippers: tuple[int, ...] = (),
    parametrization: str = "data",
) -> Float[Array, "B H"]:
    """``log_density`` around ``step_mean``: sum over executed steps for the chunk's log-likelihood."""
    mean = step_mean(predict, latents, denoise_step, noise, K, parametrization)
    return log_density(mean, latents, denoise_step, noise, K, scale, grippers)


@typed
def kl(
    mean: Float[Array, "B H A"],
    other: Float[Array, "B H A"],
    denoise_step: Int[Array, " B"],
    noise: NoiseConfig,
    K: int,
    scale: np.ndarray,
) -> Float[Array, "B H"]:
    """KL(N(mean, Σ) ‖ N(other, Σ)) of the noised step = ½·|L⁻¹(mean - other)/σ|², exact, by chunk step.

    The sum over the steps of an executed prefix is the divergence of that prefix.
    """
    std = _noised_table(noise, K, mean.dtype).std[denoise_step]
    return 0.5 * jnp.sum(
        _whitened(mean - other, std, scale, correlation_factor(noise, mean.shape[1])) ** 2, -1
    )


def _replayed_mean(
    predict: Predict,
    eps0: Array,
    x_s: Array,
    denoise_step: Array,
    noised: StepTable,
    plain: StepTable,
    K: int,
) -> Array:
    """Run the chain from ε₀ and return the noised step's mean for each row."""

    @jax.checkpoint
    def step(carry, k):
        x, mean = carry
        predicted = predict(x, jnp.full(x.shape[0], plain.t[k])).astype(x.dtype)
        is_noised = _per_chunk(denoise_step == k)
        mean = jnp.where(is_noised, _mean(noised, k, eps0, x, predicted), mean)
        x = jnp.where(is_noised, x_s, _mean(plain, k, eps0, x, predicted))
        return (x, mean), None

    (_, mean), _ = jax.lax.scan(step, (eps0, jnp.zeros_like(eps0)), jnp.arange(K, 0, -1))
    return mean


@typed
def sample(
    predict: Predict,
    eps0: Float[Array, "B H A"],
    key: PRNGKeyArray,
    denoise_step: Int[Array, " B"],
    noise: NoiseConfig,
    K: int,
    scale: np.ndarray,
    grippers: tuple[int, ...] = (),
    parametrization: str = "data",
) -> Chunk:
    """Sample a chunk with step ``denoise_step`` of each row noised, channel by channel on its ``scale``.

    Gripper channels that are drawn (``gripper.sampled_channels``) need that step to be the last.
    """
    B, H, _ = eps0.shape
    noised = _noised_table(noise, K, eps0.dtype, parametrization)
    plain = _plain_table(K, eps0.dtype, parametrization)
    factor = correlation_factor(noise, H)
    jitter = _over_steps(factor, jax.random.normal(key, eps0.shape, eps0.dtype))
    jitter = jitter * jnp.asarray(scale, eps0.dtype)

    def step(carry, k):
        x, x_t, mean, x_s = carry
        predicted = predict(x, jnp.full(B, plain.t[k])).astype(x.dtype)
        is_noised = _per_chunk(denoise_step == k)
        noised_mean = _mean(noised, k, eps0, x, predicted)
        outcome = noised_mean + noised.std[k] * jitter
        x_t, mean, x_s = (
            jnp.where(is_noised, new, old) for new, old in ((x, x_t), (noised_mean, mean), (outcome, x_s))
        )
        x = jnp.where(is_noised, outcome, _mean(plain, k, eps0, x, predicted))
        return (x, x_t, mean, x_s), None

    zeros = jnp.zeros_like(eps0)
    (action, x_t, mean, x_s), _ = jax.lax.scan(step, (eps0, zeros, zeros, zeros), jnp.arange(K, 0, -1))
    density = gaussian_log_prob(x_s, mean, noised.std[denoise_step], scale, factor)
    if grippers:
        uniforms = jax.random.uniform(jax.random.fold_in(key, 1), (B, len(grippers), H + 2), eps0.dtype)
        x_s = x_s.at[..., np.array(grippers)].set(gripper.draw(mean, grippers, noise, uniforms))
        action = x_s
        density += gripper.log_prob(mean, x_s, grippers, noise)
    return Chunk(action, jnp.stack([eps0, x_t, x_s], axis=1), density)


@typed
def deterministic(
    predict: Predict, eps0: Float[Array, "B H A"], K: int, parametrization: str = "data"
) -> Float[Array, "B H A"]:
    """LeRobot's own sampler: zero noise at every step."""
    table = _plain_table(K, eps0.dtype, parametrization)

    def step(x, k):
        predicted = predict(x, jnp.full(x.shape[0], table.t[k])).astype(x.dtype)
        return _mean(table, k, eps0, x, predicted), None

    return jax.lax.scan(step, eps0, jnp.arange(K, 0, -1))[0]


@typed
def finish(
    predict: Predict,
    latents: Float[Array, "B L H A"],
    denoise_step: Int[Array, " B"],
    K: int,
    parametrization: str = "data",
) -> Float[Array, "B H A"]:
    """Go on from the noised step's outcome without noise: the action that was executed."""
    table = _plain_table(K, latents.dtype, parametrization)
    eps0, x_s = latents[:, 0], latents[:, 2]

    def step(x, k):
        predicted = predict(x, jnp.full(x.shape[0], table.t[k])).astype(x.dtype)
        return jnp.where(_per_chunk(k < denoise_step), _mean(table, k, eps0, x, predicted), x), None

    return jax.lax.scan(step, x_s, jnp.arange(K, 0, -1))[0]


@typed
def entropy(
    denoise_step: Int[Array, " B"], noise: NoiseConfig, K: int, H: int, scale: np.ndarray
) -> Float[Array, "B H"]:
    """Entropy of each chunk step given those before it, in nats: Σ_c log(σ_c·L_hh) + ½ log 2πe."""
    std = _noised_table(noise, K, jnp.dtype(jnp.float32)).std[denoise_step]
    return _normalizer(std, scale, correlation_factor(noise, H)) + 0.5 * np.count_nonzero(scale)
