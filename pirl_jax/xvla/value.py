"""The critic: a state value from features of the policy's networks (πRL, arXiv 2510.25889 §4)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from pirl_jax.typing import Array, Float, typed


class Critic(nn.Module):
    """V(s): an MLP on one feature vector and the proprioception, in float32."""

    hidden_dims: tuple[int, ...] = (1024, 512, 256)

    @nn.compact
    @typed
    def __call__(self, inputs: Float[Array, "B D"], proprio: Float[Array, "B P"]) -> Float[Array, " B"]:
        """Estimate the value of observations.

        Args:
            inputs: One of ``FlowPolicy.critic_inputs``; no gradient flows into it.
            proprio: State padded to ``config.dim_proprio``.
        """
        x = jnp.concatenate([jax.lax.stop_gradient(inputs), proprio], axis=-1).astype(jnp.float32)
        for index, width in enumerate(self.hidden_dims):
            x = nn.gelu(nn.Dense(width, name=f"hidden_{index}")(x))
        # Near-zero values at the start: the first advantages are the returns, not an artefact of the init.
        return nn.Dense(1, kernel_init=nn.initializers.normal(1e-2), name="value")(x)[:, 0]
