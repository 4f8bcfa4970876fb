"""The critic: a state value from pooled VLM features (πRL's V_vlm, arXiv 2510.25889 §4)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from pirl_jax.typing import Array, Float, typed
from pirl_jax.xvla.model import Features


@typed
def summarize(features: Features, proprio: Float[Array, "B P"]) -> Float[Array, "B W"]:
    """Mean VLM token and proprioception side by side, in float32.

    Args:
        features: Output of ``XVLA.encode``; no gradient flows into it.
        proprio: State padded to ``config.dim_proprio``.
    """
    pooled = jax.lax.stop_gradient(features.vlm).astype(jnp.float32).mean(axis=1)
    return jnp.concatenate([pooled, proprio.astype(jnp.float32)], axis=-1)


class Critic(nn.Module):
    """V(s): an MLP on the mean VLM token and the proprioception, in float32."""

    hidden_dims: tuple[int, ...] = (1024, 512, 256)

    @nn.compact
    @typed
    def __call__(self, features: Features, proprio: Float[Array, "B P"]) -> Float[Array, " B"]:
        """Estimate the value of observations; arguments as in ``summarize``."""
        x = summarize(features, proprio)
        for index, width in enumerate(self.hidden_dims):
            x = nn.gelu(nn.Dense(width, name=f"hidden_{index}")(x))
        # Near-zero values at the start: the first advantages are the returns, not an artefact of the init.
        return nn.Dense(1, kernel_init=nn.initializers.normal(1e-2), name="value")(x)[:, 0]
