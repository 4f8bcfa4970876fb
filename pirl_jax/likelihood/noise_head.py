"""The learned standard deviation of ``noise.mode=flow_noise`` (πRL's Flow-Noise, arXiv 2510.25889).

Its parameters are a subtree of the trainable ones, ``modes.NOISE_HEAD``, so that the optimiser, checkpoints,
references and pushes treat them like the policy's own. An export leaves them out: a policy that is evaluated
has no noise. ``bridge.plugin.noise_head`` is the same network in torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pirl_jax.likelihood.modes import MODES, NOISE_HEAD
from pirl_jax.linear import Linear, full_precision
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import NoiseConfig
from pirl_jax.typing import Array, Features, Float, Params, PRNGKeyArray, typed

_fan_in = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)


class NoiseHead(nn.Module):
    """An MLP on a summary of the observation and the time, in at least float32.

    Its output is bounded by tanh, linearly in the logarithm: the factor runs from ``std_range[0]`` to
    ``std_range[1]`` and starts at their geometric mean, whatever the observation.
    """

    std_range: tuple[float, float]
    hidden_dims: tuple[int, ...]
    dim_action: int

    @nn.compact
    @typed
    def __call__(self, summary: Float[Array, "B W"], t: Float[Array, " B"]) -> Float[Array, "B A"]:
        """Return the logarithm of the factor on the noise of each action channel.

        Args:
            summary: ``FlowPolicy.summarize`` of the observations.
            t: Time of the step's input.
        """
        x = jnp.concatenate([summary, t[:, None].astype(summary.dtype)], axis=-1)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        for index, width in enumerate(self.hidden_dims):
            x = nn.silu(Linear(width, weight_init=_fan_in, name=f"hidden_{index}")(x))
        low, high = (math.log(factor) for factor in self.std_range)
        return 0.5 * (low + high) + 0.5 * (high - low) * jnp.tanh(Linear(self.dim_action, name="bound")(x))


def _module(policy: FlowPolicy, noise: NoiseConfig) -> NoiseHead:
    low, high = noise.std_range
    return NoiseHead((low, high), tuple(noise.head_hidden_dims), policy.dim_action)


def init(policy: FlowPolicy, noise: NoiseConfig, key: PRNGKeyArray) -> Params:
    """Draw the parameters to be added to the policy's trainable ones: none if the mode does not learn."""
    if not MODES[noise.mode].learned_std:
        return {}
    inputs = jnp.zeros((1, policy.summary_dim)), jnp.zeros(1)
    return {NOISE_HEAD: jax.jit(_module(policy, noise).init)(key, *inputs)["params"]}


def log_multiplier_of(
    policy: FlowPolicy, noise: NoiseConfig
) -> Callable[[Params, Features, Array, Array], Array] | None:
    """Return the head as ``(trainable, features, proprio, t[B]) -> log factor [B A]``.

    None if the mode does not learn.
    """
    if not MODES[noise.mode].learned_std:
        return None
    head = _module(policy, noise)

    def log_multiplier(params: Params, features: Features, proprio: Array, t: Array) -> Array:
        summary = policy.summarize(features, proprio)
        with full_precision():
            return head.apply({"params": params[NOISE_HEAD]}, summary, t)  # pyright: ignore[reportReturnType]

    return log_multiplier
