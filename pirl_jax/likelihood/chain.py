"""A policy's denoising chain as arrays: the coefficients of ``modes.py`` for many rows at once."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from pirl_jax.likelihood import gripper
from pirl_jax.likelihood.modes import (
    MODES,
    DenoisingStep,
    Mode,
    channel_scale,
    correlation_factor,
    noised_coefficients,
    plain_step,
)
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import NoiseConfig
from pirl_jax.typing import Array, Float, Int


@dataclass(frozen=True, eq=False)
class Chain:
    """A policy's denoising chain and what of it is random."""

    noise: NoiseConfig
    K: int
    """Denoising steps."""
    scale: np.ndarray
    """Factor on the noise level of each action channel [A]; zero where there is no noise
    (``modes.channel_scale``)."""
    grippers: tuple[int, ...] = ()
    """Channels drawn as coins (``gripper.sampled_channels``)."""
    parametrization: str = "data"
    """What ``predict`` returns: ``data`` or ``velocity``."""

    @classmethod
    def of(cls, policy: FlowPolicy, noise: NoiseConfig) -> Chain:
        """Return a policy's chain with this noise.

        Raises:
            ValueError: Groups of channels, or a drawn gripper, that the action space has not.
        """
        return cls(
            noise=noise,
            K=policy.num_denoising_steps,
            scale=channel_scale(noise, policy.channel_groups, policy.dim_action),
            grippers=gripper.sampled_channels(noise, policy.gripper_logits),
            parametrization=policy.parametrization,
        )

    @property
    def mode(self) -> Mode:
        """Which steps are noised, and how."""
        return MODES[self.noise.mode]

    @property
    def scored(self) -> np.ndarray:
        """Channels [c] with noise, whose density is scored."""
        return np.flatnonzero(self.scale)

    def factor(self, H: int) -> np.ndarray:
        """L of the noise over ``H`` chunk steps [H, H]."""
        return correlation_factor(self.noise, H)

    def noised_steps(self, denoise_step: Array) -> Int[Array, "B M"]:
        """Return the indices of each row's noised steps."""
        return denoise_step[:, None] - jnp.arange(self.mode.num_noised(self.K))

    def levels(self, level: Array | None, batch: int, dtype: jnp.dtype) -> Float[Array, " B"]:
        """Each row's noise level: the config's if none is given."""
        return jnp.full(batch, self.noise.level, dtype) if level is None else level.astype(dtype)

    def plain(self, dtype: jnp.dtype) -> DenoisingStep:
        """Coefficients [K] without noise; entry k - 1 belongs to step k."""
        columns = plain_step(np.arange(1, self.K + 1), self.K, self.parametrization)
        return DenoisingStep(*(jnp.asarray(x, dtype) for x in columns))

    def noised(self, steps: Array, level: Array) -> DenoisingStep:
        """Coefficients [B, M] of noised ``steps`` [B, M] at the rows' ``level`` [B]."""
        k = np.arange(1, self.K + 1)
        columns = noised_coefficients(self.noise, k, self.K, level[:, None], self.parametrization)
        shape = (len(level), self.K)
        columns = (jnp.broadcast_to(jnp.asarray(x, level.dtype), shape) for x in columns)
        return DenoisingStep(*(jnp.take_along_axis(column, steps - 1, axis=1) for column in columns))

    def mean(self, coefs: DenoisingStep, eps0: Array, x_t: Array, predicted: Array) -> Array:
        """c_noise·ε₀ + c_action·f (+ c_x·x_t), in the order of LeRobot's ``x1 * t + action * (1 - t)``."""
        mean = eps0 * per_chunk(coefs.noise_coef) + predicted * per_chunk(coefs.action_coef)
        return mean if self.parametrization == "data" else mean + x_t * per_chunk(coefs.x_coef)


def per_chunk(values: Array) -> Array:
    """A number for each chunk, to be multiplied with chunks [..., H, A]."""
    return values[..., None, None]
