"""The gripper as a coin: drawn once a chunk, with the exact likelihood of what was executed.

Some action spaces have gripper channels that are logits ℓ_h, executed as g_h = [σ(ℓ_h) > ½]. With
``noise.gripper=bernoulli`` and p_h = σ(ℓ_h/τ), g_h = [u_h < p_h] for uniform u_h, which are

    with probability 1 - ε   one number for the whole chunk, so that the gripper does not flicker;
    with probability ε       one of its own for each step, so that no pattern is impossible.

Without the second part a new policy could give an old pattern probability 0, and PPO's ratio no gradient. A
prefix of n steps has the probability

    P(g_1 … g_n) = (1 - ε)·max(0, hi_n - lo_n) + ε·Π_{h≤n} p_h^{g_h}·(1 - p_h)^{1 - g_h}

    hi_n = min(1, p_h of steps h ≤ n with g_h = 1),   lo_n = max(0, p_h of steps h ≤ n with g_h = 0)

and a step's log-probability is the difference of two prefixes', so that the executed steps' sum is theirs.

NumPy only, but every function takes NumPy or JAX arrays and answers in kind (the array API's namespace): the
actor draws and scores with the code that the learner differentiates.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pirl_jax.recipe import NoiseConfig

INDEPENDENCE = 0.05
"""ε, the share of chunks in which every step draws for itself."""

EXECUTED_LOGIT = 20.0
"""Size of the logit that is executed and kept in place of a drawn one: σ is 1 or 2e-9, its sign says g."""

Array = Any
"""Of NumPy or JAX. Dimension letters as in ``pirl_jax.typing``; G gripper channels."""


def sampled_channels(noise: NoiseConfig, gripper_logits: tuple[int, ...]) -> tuple[int, ...]:
    """Return the channels that are drawn and scored: the action space's gripper logits, or none.

    Raises:
        ValueError: ``noise.gripper=bernoulli`` in an action space without gripper logits.
    """
    if noise.gripper == "deterministic":
        return ()
    if not gripper_logits:
        raise ValueError(
            f"algorithm.noise.gripper={noise.gripper!r} needs an action space whose gripper is a logit "
            "(policy.action_mode ee6d or joint); this one has none. Set noise.gripper=deterministic."
        )
    return gripper_logits


def draw(logits: Array, noise: NoiseConfig, uniforms: Array) -> Array:
    """Draw the executed gripper logits, ± ``EXECUTED_LOGIT``, [B, H, G].

    Args:
        logits: what the last denoising step gives for the G grippers, [B, H, G].
        noise: temperature.
        uniforms: of [0, 1), [B, G, H + 2]: whether each step draws for itself, the shared draw, theirs.
    """
    xp = logits.__array_namespace__()
    alone, shared, own = uniforms[..., :1] < INDEPENDENCE, uniforms[..., 1:2], uniforms[..., 2:]
    p = xp.exp(_log_sigmoid(_tempered(logits, noise)))
    closed = xp.where(alone, own, shared) < p
    return xp.where(closed, EXECUTED_LOGIT, -EXECUTED_LOGIT).swapaxes(-1, -2).astype(logits.dtype)


def log_prob(logits: Array, outcome: Array, noise: NoiseConfig) -> Array:
    """Σ over grippers of log P(g_h | g_<h), [B, H].

    Args:
        logits: what the last denoising step gives for the grippers, [B, H, G].
        outcome: what was executed, [B, H, G]; its sign is g.
        noise: temperature.
    """
    pattern = _pattern(outcome)
    options = _log_conditionals(_tempered(logits, noise), pattern)
    return logits.__array_namespace__().where(pattern, options[..., 1], options[..., 0]).sum(-2)


def kl(logits: Array, other: Array, outcome: Array, noise: NoiseConfig) -> Array:
    """Σ over grippers of KL(P(g_h | g_<h) ‖ P_other(g_h | g_<h)) after the steps that were executed, [B, H].

    By the chain rule its sum over an executed prefix has the prefixes' divergence as its mean under the
    policy that acted, if that is ``logits``'. Other arguments as for ``log_prob``.
    """
    pattern = _pattern(outcome)
    new, old = (_log_conditionals(_tempered(x, noise), pattern) for x in (logits, other))
    return (logits.__array_namespace__().exp(new) * (new - old)).sum(-1).sum(-2)


def entropy(logits: Array, outcome: Array, noise: NoiseConfig) -> Array:
    """Σ over grippers of the entropy of g_h after the steps that were executed, in nats, [B, H].

    Its sum over a prefix has the prefix's entropy as its mean. Arguments as for ``log_prob``.
    """
    options = _log_conditionals(_tempered(logits, noise), _pattern(outcome))
    return -(logits.__array_namespace__().exp(options) * options).sum(-1).sum(-2)


def _tempered(logits: Array, noise: NoiseConfig) -> Array:
    """ℓ/τ, [B, G, H]."""
    return logits.swapaxes(-1, -2) / noise.gripper_temperature


def _pattern(outcome: Array) -> Array:
    """g, bool [B, G, H]."""
    return outcome.swapaxes(-1, -2) > 0


def _log_conditionals(logits: Array, pattern: Array) -> Array:
    """log P(g_h = 0 | g_<h) and log P(g_h = 1 | g_<h) after the pattern's own steps, [..., H, 2].

    Of a pattern's steps only those before h enter the pair of h.
    """
    xp = logits.__array_namespace__()
    before = np.tri(logits.shape[-1], k=-1, dtype=bool)
    past, past_pattern = logits[..., None, :], pattern[..., None, :]
    upper = xp.where(before & past_pattern, past, np.inf).min(-1)
    lower = xp.where(before & ~past_pattern, past, -np.inf).max(-1)
    shared = xp.stack(
        [
            _log_interval(upper, xp.maximum(lower, logits)),
            _log_interval(xp.minimum(upper, logits), lower),
        ],
        axis=-1,
    )
    each = xp.stack([_log_sigmoid(-logits), _log_sigmoid(logits)], axis=-1)
    executed = xp.where(pattern, each[..., 1], each[..., 0])
    own = (xp.cumsum(executed, axis=-1) - executed)[..., None] + each
    joint = xp.logaddexp(math.log1p(-INDEPENDENCE) + shared, math.log(INDEPENDENCE) + own)
    return joint - xp.logaddexp(joint[..., 0], joint[..., 1])[..., None]


def _log_sigmoid(x: Array) -> Array:
    return -x.__array_namespace__().logaddexp(0.0, -x)


def _log_interval(upper: Array, lower: Array) -> Array:
    """log max(0, σ(upper) - σ(lower)) = log σ(upper) + log σ(-lower) + log(1 - exp(lower - upper))."""
    xp = upper.__array_namespace__()
    width = upper - lower
    inside = width > 0
    # Replaced before the logarithm: what `where` drops must have a finite gradient all the same.
    width = xp.where(inside, width, 1.0)
    value = _log_sigmoid(upper) + _log_sigmoid(-lower) + xp.log(-xp.expm1(-width))
    return xp.where(inside, value, -np.inf)
