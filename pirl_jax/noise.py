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
JAX, read nothing else. A new mode is one more entry in ``MODES``.

Standard library and NumPy only: the actor's plugin runs it beside torch, the learner beside JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from pirl_jax.recipe import NoiseConfig

NUM_LATENTS = 3
"""Latents kept of a chunk: ε₀, the noised step's input x_t, and its output x_s."""


@dataclass(frozen=True)
class Step:
    """One transition t → s: x_s = noise_coef·ε₀ + action_coef·f + x_coef·x_t + std·D·L·ξ, ξ ~ N(0, 1).

    f is what the policy predicts, â or v. The products are taken in this order, in float32, so that zero
    noise is LeRobot's sampler bit for bit.
    """

    t: float
    s: float
    noise_coef: float
    action_coef: float
    std: float
    """Zero where the step is not noised. In the units of the model's action channels."""
    x_coef: float = 0.0
    """Zero for a data policy, whose chain is mixed from ε₀ and â alone."""


@dataclass(frozen=True)
class Mode:
    """A likelihood model of the chain, with one noised step a chunk."""

    noised_steps: Callable[[int], tuple[int, ...]]
    """``K -> `` the steps k of which one is noised, drawn uniformly for each chunk."""
    coefficients: Callable[[int, int, float], Step]
    """``(k, K, noise level) -> `` a data policy's transition, when it is step k that is noised."""
    max_level: float = float("inf")
    """The level must stay below this."""

    def sample_step(self, rng: np.random.Generator, K: int) -> int:
        """Draw the step to be noised."""
        candidates = self.noised_steps(K)
        return candidates[0] if len(candidates) == 1 else int(rng.choice(candidates))


def anchored_step(k: int, K: int) -> Step:
    """Step k without noise. Its weights are what float32 arithmetic gives in LeRobot: s and 1 - s."""
    s = np.float32((k - 1) / K)
    return Step(t=k / K, s=(k - 1) / K, noise_coef=float(s), action_coef=float(np.float32(1) - s), std=0.0)


def euler_step(k: int, K: int) -> Step:
    """Step k of a velocity policy without noise, with the numbers of LeRobot's ``euler_integrate``."""
    dt = -1.0 / K
    return Step(t=1.0 + (K - k) * dt, s=(k - 1) / K, noise_coef=0.0, action_coef=dt, std=0.0, x_coef=1.0)


def plain_step(k: int, K: int, parametrization: str) -> Step:
    """Step k without noise, as LeRobot samples a policy of this parametrization.

    Raises:
        ValueError: A parametrization that is not known.
    """
    if parametrization not in PARAMETRIZATIONS:
        known = " or ".join(PARAMETRIZATIONS)
        raise ValueError(f"a flow policy's parametrization must be {known}; got {parametrization!r}.")
    return PARAMETRIZATIONS[parametrization](k, K)


def _for_velocity(noised: Step, k: int, K: int) -> Step:
    """A data policy's noised step for a velocity policy: ε₀ and â become x_t + (1-t)·v and x_t - t·v.

    With these estimates the modes are the published samplers. Written as the Euler step plus what the mode
    changes about the two weights, so that the mean is Euler's to the bit where it changes nothing.
    """
    euler, anchored, t = euler_step(k, K), anchored_step(k, K), k / K
    more_noise = noised.noise_coef - anchored.noise_coef
    more_action = noised.action_coef - anchored.action_coef
    return replace(
        euler,
        action_coef=euler.action_coef + more_noise * (1 - t) - more_action * t,
        x_coef=euler.x_coef + more_noise + more_action,
        std=noised.std,
    )


def _terminal(k: int, K: int, level: float) -> Step:
    mean = anchored_step(k, K)
    return Step(mean.t, mean.s, mean.noise_coef, mean.action_coef, level)


def _flow_sde(k: int, K: int, level: float) -> Step:
    """πRL's Flow-SDE with ε₀ kept: σ = a·√(t/(1-t)), x_s = (s - σ²δ/2t)·ε₀ + (1-s)·â + σ√δ·ξ.

    At t = 1 the denominator is that of the next time, 1 - t = δ (Flow-GRPO, arXiv 2505.05470).
    """
    mean, delta = anchored_step(k, K), 1 / K
    variance = level**2 * mean.t / max(1 - mean.t, delta)
    noise_coef = mean.noise_coef - variance * delta / (2 * mean.t)
    return Step(mean.t, mean.s, noise_coef, mean.action_coef, (variance * delta) ** 0.5)


def _flow_cps(k: int, K: int, level: float) -> Step:
    """Coefficients-preserving sampling with ε₀ kept: x_s = s·√(1-η²)·ε₀ + (1-s)·â + s·η·ξ."""
    mean = anchored_step(k, K)
    return Step(mean.t, mean.s, mean.s * (1 - level**2) ** 0.5, mean.action_coef, mean.s * level)


MODES: Mapping[str, Mode] = MappingProxyType(
    {
        # The last step, whose output is the action itself: A = â(x_{1/K}, 1/K) + σ·ξ.
        "terminal": Mode(noised_steps=lambda K: (1,), coefficients=_terminal),
        "flow_sde": Mode(lambda K: tuple(range(1, K + 1)), _flow_sde),
        # The last step has s = 0: nothing of ε₀ is left to exchange for noise.
        "flow_cps": Mode(lambda K: tuple(range(2, K + 1)), _flow_cps, max_level=1.0),
    }
)


def validate(noise: NoiseConfig, K: int = 1) -> None:
    """Check that the mode exists, takes the level, has a step to noise, and can draw the gripper if asked.

    Raises:
        ValueError: naming the modes that are known, the level's bounds, or the steps it noises.
    """
    if noise.mode not in MODES:
        raise ValueError(
            f"algorithm.noise.mode must be one of {', '.join(sorted(MODES))}; got {noise.mode!r}."
        )
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
    if noise.gripper == "bernoulli" and mode.noised_steps(K) != (1,):
        raise ValueError(
            "algorithm.noise.gripper='bernoulli' needs a mode that noises the last step alone, whose outcome "
            f"is the action; noise.mode={noise.mode!r} noises one of {mode.noised_steps(K)}. Set "
            "noise.mode=terminal or noise.gripper=deterministic."
        )


PARAMETRIZATIONS: Mapping[str, Callable[[int, int], Step]] = MappingProxyType(
    {"data": anchored_step, "velocity": euler_step}
)
"""What a flow policy predicts → its step k of K without noise."""


def noised_step(noise: NoiseConfig, k: int, K: int, parametrization: str = "data") -> Step:
    """The transition of step k when it is the noised one."""
    candidates = MODES[noise.mode].noised_steps(K)
    if k not in candidates:
        raise ValueError(f"mode {noise.mode!r} noises one of the steps {candidates} of {K}; got step {k}.")
    noised = MODES[noise.mode].coefficients(k, K, noise.level)
    return noised if parametrization == "data" else _for_velocity(noised, k, K)


def schedule(
    noise: NoiseConfig, K: int, step: int | None = None, parametrization: str = "data"
) -> tuple[Step, ...]:
    """The K transitions in sampling order, k = K … 1; ``step`` is the noised one (None: zero noise)."""
    return tuple(
        noised_step(noise, k, K, parametrization) if k == step else plain_step(k, K, parametrization)
        for k in range(K, 0, -1)
    )


def correlation_factor(noise: NoiseConfig, H: int) -> np.ndarray:
    """L of a chunk's noise L·ξ over its H steps: the Cholesky factor of (1 - ρ)·1 + ρ·11ᵀ, float64 [H, H].

    It is lower triangular, so that entry h of L⁻¹·(a residual) needs the steps up to h alone: its standard
    normal density is that of step h given the steps before it, and an executed prefix has the sum of its own.
    """
    return np.linalg.cholesky((1.0 - noise.correlation) * np.eye(H) + noise.correlation)


def channel_scale(noise: NoiseConfig, groups: Mapping[str, tuple[int, ...]], A: int) -> np.ndarray:
    """D: the factor on the level for each action channel, zero where there is no noise, float64 [A].

    Args:
        noise: ``group_scale`` names groups of channels; those it does not name have a factor of 1.
        groups: Name → channels (``pirl_jax.channels``); channels in no group carry no noise.
        A: Action channels as the model sees them.

    Raises:
        ValueError: A group that the action space has not, or a scale that is not positive.
    """
    scale = np.zeros(A)
    for channels in groups.values():
        scale[list(channels)] = 1.0
    for name, factor in noise.group_scale.items():
        if name not in groups:
            raise ValueError(
                f"algorithm.noise.group_scale names {name!r}; this action space has {', '.join(groups)}."
            )
        if not factor > 0:
            raise ValueError(
                f"algorithm.noise.group_scale.{name} must be positive; got {factor}. "
                "Scales multiply noise.level."
            )
        scale[list(groups[name])] = factor
    return scale
