"""The linear layer of every network here, with torch's layout: its weights reach an actor untransposed."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import Initializer, zeros

from pirl_jax.typing import Array, Float


class Linear(nn.Module):
    """``x @ weight.T + bias`` with ``weight [out, in]``."""

    features: int
    use_bias: bool = True
    weight_init: Initializer = zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*B in"]) -> Float[Array, "*B out"]:
        weight = self.param("weight", self.weight_init, (self.features, x.shape[-1]))
        y = jnp.einsum("...i,oi->...o", x, weight.astype(x.dtype))
        if self.use_bias:
            y = y + self.param("bias", zeros, (self.features,)).astype(x.dtype)
        return y
