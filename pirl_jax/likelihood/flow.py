"""The denoising chain in JAX: sampling it, and the likelihood of what it sampled.

The policy enters as its ``Chain`` and one or two callables, with everything but the chain bound:

    predict(x_t: Float[B H A], t: Float[B]) -> Float[B H A]
    log_multiplier(t: Float[B]) -> log factor on the noise of each channel: Float[B A]

The first is the flow head: it returns the clean action â = f_θ(x_t, t, o) before any post-processing, or the
velocity v (``Chain.parametrization``), in float32. The second is the noise head of a mode that learns its
standard deviations; others have none.

A chunk has M noised steps (one, or all K) in a row. ``denoise_step`` is the index k of the first of them,
``level`` the noise level of each row (``NoiseConfig.level`` if not given), and its latents are those of
``modes.num_latents``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.likelihood import gripper
from pirl_jax.likelihood.chain import Chain, per_chunk
from pirl_jax.likelihood.modes import NO_STEP
from pirl_jax.typing import Array, Float, Int, typed

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

Predict = Callable[[Array, Array], Array]
LogMultiplier = Callable[[Array], Array]


class Chunk(NamedTuple):
    """A sampled action chunk and what the learner needs to score it again."""

    action: Float[Array, "B H A"]
    latents: Float[Array, "B L H A"]
    log_prob: Float[Array, "B H"]


class Distribution(NamedTuple):
    """What a chunk's noised steps are drawn from under some parameters, each given its stored input.

    Step m is N(mean_m, (std_m)²·L·Lᵀ over the H steps) for each of the c scored channels.
    """

    mean: Float[Array, "B M H c"]
    std: Float[Array, "B M c"]
    gripper_logits: Float[Array, "B H G"] | None = None
    """Of the coins, if the chain draws grippers."""


def _float_dtype(x: Array) -> jnp.dtype:
    """At least float32: at σ = 1 cm, bfloat16 rounding alone is a log-ratio of .6."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _over_steps(matrix: np.ndarray, x: Array) -> Array:
    """``matrix`` [H, H] applied to the steps of ``x`` [..., H, C]; an accelerator's default would be TF32."""
    return jnp.einsum("hj,...jc->...hc", jnp.asarray(matrix, x.dtype), x, precision="highest")


@typed
def stds(
    chain: Chain,
    denoise_step: Int[Array, " B"],
    level: Float[Array, " B"],
    log_multiplier: LogMultiplier | None = None,
) -> Float[Array, "B M c"]:
    """Standard deviation of each noised step on the scored channels, learned or not.

    Args:
        chain: whose noise.
        denoise_step: index k of the (first) noised step.
        level: of each row.
        log_multiplier: the noise head, for a mode that learns.
    """
    scored = chain.scored
    coefs = chain.noised(chain.noised_steps(denoise_step), level)
    std = coefs.std[..., None] * jnp.asarray(chain.scale[scored], level.dtype)
    if not chain.mode.learned_std:
        return std
    if log_multiplier is None:
        raise ValueError(
            f"noise.mode={chain.noise.mode!r} learns its standard deviation: give its noise head."
        )
    return std * jnp.exp(jax.vmap(log_multiplier, in_axes=1, out_axes=1)(coefs.t)[..., scored]).astype(
        std.dtype
    )


@typed
def distribution(
    chain: Chain,
    predict: Predict,
    latents: Float[Array, "B L H A"],
    denoise_step: Int[Array, " B"],
    level: Float[Array, " B"] | None = None,
    log_multiplier: LogMultiplier | None = None,
) -> Distribution:
    """The noised steps' distributions under the current policy, from the latents of the policy that sampled.

    Each step is taken from its stored input x_t: with one noised step (``replay=last``) that is one head
    call, whose gradient leaves out what the parameters did to x_t; with all of them it is K calls, and as
    every input is part of what was sampled, the exact gradient. ``replay=full``: the one noised step given ε₀
    alone, by K head calls. Where there are several calls, the backward pass computes each again instead of
    keeping what was inside it, so only the chain's K states take memory that grows with K.

    Args:
        chain: mode, replay and level; denoising steps.
        predict: the flow head, see the module's docstring.
        latents: ``modes.num_latents`` states of the chain.
        denoise_step: index k of the (first) noised step, 1 ≤ k ≤ K.
        level: of each row.
        log_multiplier: the noise head, for a mode that learns.

    Returns:
        In float32, or float64 if the latents are.
    """
    dtype = _float_dtype(latents)
    latents = latents.astype(dtype)
    level = chain.levels(level, len(latents), dtype)
    steps = chain.noised_steps(denoise_step)
    coefs = chain.noised(steps, level)
    eps0, x_t = latents[:, 0], latents[:, -steps.shape[1] - 1 : -1]
    if chain.noise.replay == "full":
        x_t, predicted = (x[:, None] for x in _replayed(chain, predict, eps0, denoise_step))
    else:
        inputs = jnp.moveaxis(x_t, 1, 0), coefs.t.T
        predicted = jnp.moveaxis(_each(lambda x_t, t: predict(x_t, t).astype(dtype), *inputs), 0, 1)
    mean = chain.mean(coefs, eps0[:, None], x_t, predicted)
    return Distribution(
        mean[..., chain.scored],
        stds(chain, denoise_step, level, log_multiplier),
        mean[:, -1][..., np.array(chain.grippers)] if chain.grippers else None,
    )


def _each(function: Callable[..., Array], *inputs: Array) -> Array:
    """``function`` of each entry of the leading axis; of many, in turn, and again in the backward pass."""
    if len(inputs[0]) == 1:
        return function(*(x[0] for x in inputs))[None]
    return jax.lax.map(jax.checkpoint(lambda entry: function(*entry)), inputs)


def _replayed(
    chain: Chain, predict: Predict, eps0: Array, denoise_step: Array
) -> tuple[Float[Array, "B H A"], Float[Array, "B H A"]]:
    """The noised step's input, and what is predicted of it, from ε₀ by the zero-noise chain before it."""
    plain = chain.plain(eps0.dtype)

    @jax.checkpoint
    def step(carry, k):
        x, *kept = carry
        coefs = jax.tree.map(lambda column: column[k - 1], plain)
        predicted = predict(x, jnp.full(x.shape[0], coefs.t)).astype(x.dtype)
        is_noised = per_chunk(denoise_step == k)
        kept = (jnp.where(is_noised, new, old) for new, old in zip((x, predicted), kept, strict=True))
        return (chain.mean(coefs, eps0, x, predicted), *kept), None

    zeros = jnp.zeros_like(eps0)
    (_, x_t, predicted), _ = jax.lax.scan(step, (eps0, zeros, zeros), jnp.arange(chain.K, 0, -1))
    return x_t, predicted


@typed
def log_density(chain: Chain, given: Distribution, latents: Float[Array, "B L H A"]) -> Float[Array, "B H"]:
    """Log-density of the noised steps' stored outcomes, for each chunk step given those before.

    The sum over the noised steps (their joint density given ε₀), scored channels and grippers. Summed over
    ``modes.scored_steps`` it is the log-likelihood of all noise that decided what was executed.

    Args:
        chain: mode and correlation; channels.
        given: their distributions.
        latents: ``modes.num_latents`` states of the chain.
    """
    M = given.mean.shape[1]
    outcome = latents[:, -M:].astype(given.mean.dtype)[..., chain.scored]
    factor = chain.factor(outcome.shape[2])
    whitened = _over_steps(np.linalg.inv(factor), (outcome - given.mean) / given.std[:, :, None])
    density = -0.5 * jnp.sum(whitened**2, axis=(1, 3)) - _normalizer(given.std, factor)
    if given.gripper_logits is None:
        return density
    return density + gripper.log_prob(given.gripper_logits, drawn_grippers(chain, latents), chain.noise)


def drawn_grippers(chain: Chain, latents: Array) -> Float[Array, "B H G"]:
    """The executed logits of the chain's grippers."""
    return latents[:, -1][..., np.array(chain.grippers)]


def _normalizer(std: Array, factor: np.ndarray) -> Float[Array, "B H"]:
    """Σ over noised steps and channels of log(std·L_hh) + ½ log 2π."""
    _, M, C = std.shape
    constant = M * C * (np.log(np.diag(factor)) + _HALF_LOG_2PI)
    return jnp.sum(jnp.log(std), axis=(1, 2))[:, None] + jnp.asarray(constant, std.dtype)


def log_prob(
    chain: Chain,
    predict: Predict,
    latents: Float[Array, "B L H A"],
    denoise_step: Int[Array, " B"],
    level: Float[Array, " B"] | None = None,
    log_multiplier: LogMultiplier | None = None,
) -> Float[Array, "B H"]:
    """``log_density`` of ``distribution``: sum over executed steps for the chunk's log-likelihood.

    For tests, which compare the two with references in one call.
    """
    drawn_from = distribution(chain, predict, latents, denoise_step, level, log_multiplier)
    return log_density(chain, drawn_from, latents)


@typed
def kl(
    chain: Chain, new: Distribution, other: Distribution, latents: Float[Array, "B L H A"]
) -> Float[Array, "B H"]:
    """Σ over noised steps and grippers of KL(new ‖ other) in closed form, by chunk step; both share L.

    In the coordinates L⁻¹x the chunk steps are independent, N(L⁻¹μ, σ²) and N(L⁻¹ν, τ²), and the prefix of a
    chunk stays one: log(τ/σ) + (σ² + (L⁻¹(μ - ν))²)/2τ² - ½ for each, and the sum over the steps of an
    executed prefix is the divergence of that prefix. With one noised step this is exact given its input; the
    sum over a chain's steps is its divergence in the mean over chains that ``new`` itself would draw.
    """
    shift = _over_steps(
        np.linalg.inv(chain.factor(new.mean.shape[2])),
        (new.mean - other.mean) / other.std[:, :, None],
    )
    # ½(r² - 1) - log r of r = σ/τ, without cancellation near r = 1.
    log_r = jnp.log(new.std / other.std)
    widths = 0.5 * jnp.expm1(2 * log_r) - log_r
    divergence = jnp.sum(0.5 * shift**2 + widths[:, :, None], axis=(1, 3))
    if new.gripper_logits is None:
        return divergence
    pair = new.gripper_logits, other.gripper_logits
    return divergence + gripper.kl(*pair, drawn_grippers(chain, latents), chain.noise)


@typed
def entropy(chain: Chain, std: Float[Array, "B M c"], H: int) -> Float[Array, "B H"]:
    """Entropy of the noise of each chunk step given those before it, in nats: Σ log(σ·L_hh) + ½ log 2πe."""
    return _normalizer(std, chain.factor(H)) + 0.5 * std.shape[1] * std.shape[2]


@typed
def sample(
    chain: Chain,
    predict: Predict,
    eps0: Float[Array, "B H A"],
    keys: Array,
    denoise_step: Int[Array, " B"],
    level: Float[Array, " B"] | None = None,
    log_multiplier: LogMultiplier | None = None,
) -> Chunk:
    """Sample chunks with their noised steps beginning at ``denoise_step``, channel by channel on the scale.

    Grippers that are drawn need the one noised step to be the last.

    Args:
        chain: what is random.
        predict: the flow head, see the module's docstring.
        eps0: the first noise.
        keys: one a row, of its other draws: what a row becomes depends on no other row.
        denoise_step: index k of the (first) noised step, 1 ≤ k ≤ K; ``modes.NO_STEP``: none is, the row is
            ``deterministic``'s, its log-density 0 and its latents those of the first step that may be noised.
        level: of each row.
        log_multiplier: the noise head, for a mode that learns.
    """
    B, H, _ = eps0.shape
    K, scored, factor, plain = chain.K, chain.scored, chain.factor(H), chain.plain(eps0.dtype)
    level = chain.levels(level, B, eps0.dtype)
    noisy = denoise_step != NO_STEP
    denoise_step = jnp.where(noisy, denoise_step, chain.mode.first_steps(K)[0])
    steps = chain.noised_steps(denoise_step)
    noised = chain.noised(steps, level)
    std = stds(chain, denoise_step, level, log_multiplier)
    rows, M = jnp.arange(B), steps.shape[1]

    def draws(distribution, number, shape):
        return jax.vmap(lambda key: distribution(jax.random.fold_in(key, number), shape, eps0.dtype))(keys)

    def step(x, k):
        at_k = jax.tree.map(lambda column: column[k - 1], plain)
        predicted = predict(x, jnp.full(B, at_k.t)).astype(x.dtype)
        m = jnp.clip(denoise_step - k, 0, M - 1)
        mean = chain.mean(jax.tree.map(lambda column: column[rows, m], noised), eps0, x, predicted)
        drawn = draws(jax.random.normal, k, (H, len(scored)))
        outcome = mean.at[..., scored].add(_over_steps(factor, drawn) * std[rows, m][:, None])
        plainly = chain.mean(at_k, eps0, x, predicted)
        x = jnp.where(per_chunk(noisy & (steps[rows, m] == k)), outcome, plainly)
        return x, (mean, x)

    _, (means, outcomes) = jax.lax.scan(step, eps0, jnp.arange(K, 0, -1))
    states = jnp.concatenate([eps0[None], outcomes])  # at times 1 … 0: entry K - k is step k's input
    noised_from = K - denoise_step[:, None]
    means = means[noised_from + jnp.arange(M), rows[:, None]]
    logits = None
    if chain.grippers:
        channels = np.array(chain.grippers)
        logits = means[:, -1][..., channels]
        uniforms = draws(jax.random.uniform, 0, (len(channels), H + 2))
        drawn = gripper.draw(logits, chain.noise, uniforms)
        settled = jnp.where(per_chunk(noisy), drawn, states[-1][..., channels])
        states = states.at[-1:, ..., channels].set(settled[None])
    path = states[noised_from + jnp.arange(M + 1), rows[:, None]]
    latents = path if chain.mode.every_step else jnp.concatenate([eps0[:, None], path], axis=1)
    drawn_from = Distribution(means[..., scored], std, logits)
    density = log_density(chain, drawn_from, latents)
    return Chunk(states[-1], latents, jnp.where(noisy[:, None], density, 0))


@typed
def deterministic(chain: Chain, predict: Predict, eps0: Float[Array, "B H A"]) -> Float[Array, "B H A"]:
    """LeRobot's own sampler: zero noise at every step."""
    return _plainly_from(chain, predict, eps0, eps0, jnp.full(len(eps0), chain.K))


@typed
def finish(
    chain: Chain, predict: Predict, latents: Float[Array, "B L H A"], denoise_step: Int[Array, " B"]
) -> Float[Array, "B H A"]:
    """Go on from the last noised step's outcome without noise: the action that was executed."""
    remaining = denoise_step - chain.mode.num_noised(chain.K)
    return _plainly_from(chain, predict, latents[:, 0], latents[:, -1], remaining)


def _plainly_from(chain: Chain, predict: Predict, eps0: Array, x: Array, remaining: Array) -> Array:
    """The zero-noise chain from ``x``, which has ``remaining`` steps to go."""
    plain = chain.plain(x.dtype)

    def step(x, k):
        coefs = jax.tree.map(lambda column: column[k - 1], plain)
        predicted = predict(x, jnp.full(x.shape[0], coefs.t)).astype(x.dtype)
        return jnp.where(per_chunk(k <= remaining), chain.mean(coefs, eps0, x, predicted), x), None

    return jax.lax.scan(step, x, jnp.arange(chain.K, 0, -1))[0]
