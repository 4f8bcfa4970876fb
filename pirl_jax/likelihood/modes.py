"""Where a flow policy's randomness is: the denoising chain, as data.

Time runs from 1 (noise) to 0 (action) in K steps of δ = 1/K. Step k goes from t = k/K to s = (k-1)/K.
LeRobot's X-VLA sampler keeps the first noise ε₀ and mixes it with the newest clean action â:

    x_s = s·ε₀ + (1 - s)·â(x_t, t)                               (zero noise, every mode)
    x_s = c_noise·ε₀ + c_action·â(x_t, t) + std·D·L·ξ            (a noised step, ξ ~ N(0, 1))

D scales the action channels (``channel_scale``), L correlates a chunk's steps: L·Lᵀ = (1 - ρ)·1 + ρ·11ᵀ.
Other flow policies predict the velocity v = ε - a, and LeRobot takes Euler steps (``parametrization``):

    x_s = x_t + (s - t)·v(x_t, t)                                (zero noise, every mode)
    x_s = c_x·x_t + c_action·v(x_t, t) + std·D·L·ξ               (a noised step)

A *mode* says which steps may be noised and with which coefficients; samplers and likelihoods, in torch and in
JAX, read nothing else. A new mode is one more entry in ``MODES``, and its name in ``NoiseConfig.mode``.

Standard library and NumPy only: the actor's plugin runs it beside torch, the learner beside JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from pirl_jax.recipe import NoiseConfig

NOISE_HEAD = "noise_head"
"""Where a learned standard deviation's parameters are, among the trainable ones and in pushes to actors."""

NO_STEP = 0
"""In place of the index k of a chunk's noised step: none is, and the chain is LeRobot's own sampler."""

Numbers = Any
"""A number, or an array: NumPy's, or JAX's where the noise level is one."""


class DenoisingStep(NamedTuple):
    """One transition t → s: x_s = noise_coef·ε₀ + action_coef·f + x_coef·x_t + std·D·L·ξ, ξ ~ N(0, 1).

    f is what the policy predicts, â or v. The products are taken in this order, in float32, so that zero
    noise is LeRobot's sampler bit for bit. Of an array of steps each field is an array.
    """

    t: Numbers
    s: Numbers
    noise_coef: Numbers
    action_coef: Numbers
    std: Numbers
    """Zero where the step is not noised. In the units of the model's action channels. A learned standard
    deviation is a multiple of it."""
    x_coef: Numbers = 0.0
    """Zero for a data policy, whose chain is mixed from ε₀ and â alone."""


@dataclass(frozen=True)
class Mode:
    """A likelihood model of the chain."""

    noised_steps: Callable[[int], tuple[int, ...]]
    """``K -> `` the steps k that are noised: one of them in a chunk, drawn uniformly, or all."""
    coefficients: Callable[[DenoisingStep, int, Numbers], DenoisingStep]
    """``(anchored step, K, noise level) -> `` a data policy's transition when that step is noised. Plain
    arithmetic that broadcasts, so that the learner calls it with a level for each row."""
    max_level: float = float("inf")
    """The level must stay below this."""
    every_step: bool = False
    """All K steps of a chunk are noised instead of one."""
    learned_std: bool = False
    """A head of the policy multiplies the standard deviations (``NoiseConfig.std_range``)."""

    def first_steps(self, K: int) -> tuple[int, ...]:
        """Return the steps k that may be the noised one, or the first of them."""
        return (K,) if self.every_step else self.noised_steps(K)

    def num_noised(self, K: int) -> int:
        """Return how many consecutive steps of a chunk are noised."""
        return K if self.every_step else 1

    def sample_step(self, rng: np.random.Generator, K: int) -> int:
        """Draw the (first) step to be noised."""
        candidates = self.first_steps(K)
        return candidates[0] if len(candidates) == 1 else int(rng.choice(candidates))


def anchored_step(k: Numbers, K: int) -> DenoisingStep:
    """Step k without noise. Its weights are what float32 arithmetic gives in LeRobot: s and 1 - s."""
    s = np.asarray((k - 1) / K, np.float32)
    noise_coef, action_coef = (np.asarray(x, np.float64) for x in (s, np.float32(1) - s))
    return DenoisingStep(k / K, (k - 1) / K, noise_coef, action_coef, 0.0 * k, 0.0 * k)


def euler_step(k: Numbers, K: int) -> DenoisingStep:
    """Step k of a velocity policy without noise, with the numbers of LeRobot's ``euler_integrate``."""
    dt, zero = -1.0 / K, 0.0 * k
    return DenoisingStep(1.0 + (K - k) * dt, (k - 1) / K, zero, zero + dt, zero, zero + 1.0)


def plain_step(k: Numbers, K: int, parametrization: str = "data") -> DenoisingStep:
    """Step k without noise, as LeRobot samples a policy of this parametrization.

    Raises:
        ValueError: A parametrization that is not known.
    """
    if parametrization not in PARAMETRIZATIONS:
        known = " or ".join(PARAMETRIZATIONS)
        raise ValueError(f"a flow policy's parametrization must be {known}; got {parametrization!r}.")
    return PARAMETRIZATIONS[parametrization](k, K)


def noised_coefficients(
    noise: NoiseConfig, k: Numbers, K: int, level: Numbers, parametrization: str = "data"
) -> DenoisingStep:
    """The transitions of steps k when they are noised; ``k`` and ``level`` broadcast."""
    anchored = anchored_step(k, K)
    noised = MODES[noise.mode].coefficients(anchored, K, level)
    return noised if parametrization == "data" else _for_velocity(noised, anchored, euler_step(k, K))


def _for_velocity(noised: DenoisingStep, anchored: DenoisingStep, euler: DenoisingStep) -> DenoisingStep:
    """A data policy's noised step for a velocity policy: ε₀ and â become x_t + (1-t)·v and x_t - t·v.

    With these estimates the modes are the published samplers. Written as the Euler step plus what the mode
    changes about the two weights, so that the mean is Euler's to the bit where it changes nothing.
    """
    more_noise = noised.noise_coef - anchored.noise_coef
    more_action = noised.action_coef - anchored.action_coef
    return euler._replace(
        action_coef=euler.action_coef + more_noise * (1 - anchored.t) - more_action * anchored.t,
        x_coef=euler.x_coef + more_noise + more_action,
        std=noised.std,
    )


def _level_as_std(step: DenoisingStep, K: int, level: Numbers) -> DenoisingStep:
    return step._replace(std=level)


def _flow_sde(step: DenoisingStep, K: int, level: Numbers) -> DenoisingStep:
    """πRL's Flow-SDE with ε₀ kept: σ = a·√(t/(1-t)), x_s = (s - σ²δ/2t)·ε₀ + (1-s)·â + σ√δ·ξ.

    At t = 1 the denominator is that of the next time, 1 - t = δ (Flow-GRPO, arXiv 2505.05470).
    """
    variance = level**2 * (step.t / np.maximum(1 - step.t, 1 / K))
    return step._replace(noise_coef=step.noise_coef - variance / (2 * K * step.t), std=(variance / K) ** 0.5)


def _flow_cps(step: DenoisingStep, K: int, level: Numbers) -> DenoisingStep:
    """Coefficients-preserving sampling with ε₀ kept: x_s = s·√(1-η²)·ε₀ + (1-s)·â + s·η·ξ."""
    return step._replace(noise_coef=step.s * (1 - level**2) ** 0.5, std=step.s * level)


def _all_steps(K: int) -> tuple[int, ...]:
    return tuple(range(1, K + 1))


MODES: Mapping[str, Mode] = MappingProxyType(
    {
        # The last step, whose output is the action itself: A = â(x_{1/K}, 1/K) + σ·ξ.
        "terminal": Mode(noised_steps=lambda K: (1,), coefficients=_level_as_std),
        "flow_sde": Mode(_all_steps, _flow_sde),
        # The last step has s = 0: nothing of ε₀ is left to exchange for noise.
        "flow_cps": Mode(lambda K: tuple(range(2, K + 1)), _flow_cps, max_level=1.0),
        # πRL's Flow-Noise with ε₀ kept: x_s = s·ε₀ + (1-s)·â + std_θ(o, t)·ξ at every step.
        "flow_noise": Mode(_all_steps, _level_as_std, every_step=True, learned_std=True),
    }
)


def validate(noise: NoiseConfig, K: int = 1) -> None:
    """Check that the mode takes the level, has a step to noise, and can draw the gripper if asked.

    Raises:
        ValueError: naming the field, its bounds and what was found.
    """
    mode = MODES[noise.mode]
    if not 0 < noise.level < mode.max_level:
        raise ValueError(
            f"algorithm.noise.level must be above 0 and below {mode.max_level:.4g} with noise.mode="
            f"{noise.mode!r}; got {noise.level}."
        )
    if K < 1 or not mode.noised_steps(K):
        raise ValueError(
            f"algorithm.noise.mode={noise.mode!r} has no step to noise in policy.num_denoising_steps={K}. "
            "Raise num_denoising_steps or choose another mode."
        )
    if noise.gripper == "bernoulli" and (mode.every_step or mode.noised_steps(K) != (1,)):
        raise ValueError(
            "algorithm.noise.gripper='bernoulli' needs a mode that noises the last step alone, whose outcome "
            f"is the action; noise.mode={noise.mode!r} noises {'all' if mode.every_step else 'one'} of "
            f"{mode.noised_steps(K)}. Set noise.mode=terminal or noise.gripper=deterministic."
        )


PARAMETRIZATIONS: Mapping[str, Callable[[Numbers, int], DenoisingStep]] = MappingProxyType(
    {"data": anchored_step, "velocity": euler_step}
)
"""What a flow policy predicts → its step k of K without noise."""


def level_at(noise: NoiseConfig, update: int) -> float:
    """The noise level of actors whose parameters have had ``update`` updates.

    From ``level`` to ``final_level`` in ``decay_updates`` equal steps, then constant. A float32 number: so it
    travels to the actors and into the learner's batches.
    """
    level = noise.level
    if noise.final_level is not None:
        level += (noise.final_level - level) * min(1.0, update / noise.decay_updates)
    return float(np.float32(level))


def num_latents(noise: NoiseConfig, K: int) -> int:
    """How many states of a chunk's chain are kept as its latents, by which it can be scored again.

    One noised step: ε₀, its input x_t and its output x_s. Every step: all K+1 states, from ε₀ to the action.
    Either way the last ``num_noised + 1`` of them are the noised steps' inputs and outputs in sampling order.
    """
    return K + 1 if MODES[noise.mode].every_step else 3


def noised_step(noise: NoiseConfig, k: int, K: int, parametrization: str = "data") -> DenoisingStep:
    """The transition of step k when it is noised, at the config's level."""
    candidates = MODES[noise.mode].noised_steps(K)
    if k not in candidates:
        raise ValueError(f"mode {noise.mode!r} noises one of the steps {candidates} of {K}; got step {k}.")
    return DenoisingStep(*map(float, noised_coefficients(noise, k, K, noise.level, parametrization)))


def transitions(
    noise: NoiseConfig, K: int, step: int | None = None, parametrization: str = "data"
) -> tuple[DenoisingStep, ...]:
    """The K transitions in sampling order, k = K … 1.

    Args:
        noise: The mode, and the level that the actor has.
        K: Denoising steps.
        step: The (first) noised one. None: zero noise.
        parametrization: What the policy predicts.
    """
    noised = () if step is None else range(step, step - MODES[noise.mode].num_noised(K), -1)
    return tuple(
        noised_step(noise, k, K, parametrization)
        if k in noised
        else DenoisingStep(*map(float, plain_step(k, K, parametrization)))
        for k in range(K, 0, -1)
    )


def scored_steps(denoise_step: np.ndarray, executed: np.ndarray, H: int) -> np.ndarray:
    """Return which steps' noise decided what was executed: those a likelihood is summed over, bool [T, H].

    After the last denoising step nothing mixes the steps of a chunk any more, and of noise drawn there only
    that of executed steps was ever seen. Noise drawn before went through further calls of the head, which
    attends to all steps: each of them has reached the executed ones.

    Args:
        denoise_step: index k of the (first) noised step of each chunk, int [T].
        executed: chunk steps that were executed, int [T].
        H: steps of a whole chunk.
    """
    return (np.arange(H) < executed[:, None]) | (denoise_step[:, None] > 1)


def correlation_factor(noise: NoiseConfig, H: int) -> np.ndarray:
    """L of a chunk's noise L·ξ over its H steps: the Cholesky factor of (1 - ρ)·1 + ρ·11ᵀ, float64 [H, H].

    It is lower triangular, so that entry h of L⁻¹·(a residual) needs the steps up to h alone: its standard
    normal density is that of step h given the steps before it, and the first n steps have the sum of theirs.
    """
    return np.linalg.cholesky((1.0 - noise.correlation) * np.eye(H) + noise.correlation)


def channel_scale(noise: NoiseConfig, groups: Mapping[str, tuple[int, ...]], A: int) -> np.ndarray:
    """D: the factor on the level for each action channel, zero where there is no noise, float64 [A].

    Args:
        noise: ``group_scale`` names groups of channels; those it does not name have a factor of 1.
        groups: Name → channels (``pirl_jax.xvla.channels``); channels in no group carry no noise.
        A: Action channels as the model sees them.

    Raises:
        ValueError: A group that the action space has not.
    """
    scale = np.zeros(A)
    for channels in groups.values():
        scale[list(channels)] = 1.0
    for name, factor in noise.group_scale.items():
        if name not in groups:
            raise ValueError(
                f"algorithm.noise.group_scale names {name!r}; this action space has {', '.join(groups)}."
            )
        scale[list(groups[name])] = factor
    return scale
