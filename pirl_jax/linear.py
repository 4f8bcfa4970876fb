"""Products: their precision, and the linear layer, whose weights lie as torch's do and reach actors as is."""

from __future__ import annotations

from contextlib import AbstractContextManager

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer, zeros

from pirl_jax.typing import Array, Float


def full_precision() -> AbstractContextManager[None]:
    """Make float32 products float32 on every backend.

    JAX's default on recent GPUs rounds their operands to TF32's 10 bits, which moves a log-probability with σ
    = 1 cm by far more than the actor and the learner may differ.
    """
    return jax.default_matmul_precision("highest")


class Linear(nn.Module):
    """``x @ weight.T + bias`` with ``weight [out, in]``."""

    features: int
    use_bias: bool = True
    weight_init: Initializer = zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*B in"]) -> Float[Array, "*B out"]:
        """Map the last axis of ``x``, in its dtype, from ``in`` to ``out`` features."""
        weight = self.param("weight", self.weight_init, (self.features, x.shape[-1]))
        y = jnp.einsum("...i,oi->...o", x, weight.astype(x.dtype))
        if self.use_bias:
            y = y + self.param("bias", zeros, (self.features,)).astype(x.dtype)
        return y
