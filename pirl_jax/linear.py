"""Products: their precision, and the linear layer, whose weights lie as torch's do and reach actors as is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer, zeros

from pirl_jax.typing import Array, Float

Precision = Literal["highest", "bf16_x6", "bf16_x3", "tf32_x3", "tf32", "bf16"]
"""Of a product's operands, from the finest to the coarsest; sums are float32 in all.

``bf16`` and ``tf32`` round operands to 8 and 11 significant bits, and multiply once. ``_x3`` and ``_x6``
split an operand into two or three such parts, and add up the three or six largest of the parts' products.
"""

PRECISIONS: Mapping[Precision, str] = MappingProxyType(
    {
        "highest": "highest",
        "bf16_x6": "BF16_BF16_F32_X6",
        "bf16_x3": "BF16_BF16_F32_X3",
        "tf32_x3": "TF32_TF32_F32_X3",
        "tf32": "TF32_TF32_F32",
        "bf16": "BF16_BF16_F32",
    }
)
"""Precision → JAX's name of it (``jax.lax.DotAlgorithmPreset``, but for ``highest``)."""


def products_in(precision: Precision) -> AbstractContextManager[None]:
    """Compute float32 products that are traced inside in this precision.

    The products of their gradients, wherever those are traced, have it too: a transposed product keeps the
    precision of the one that it belongs to.
    """
    return jax.default_matmul_precision(PRECISIONS[precision])


def full_precision() -> AbstractContextManager[None]:
    """Make float32 products float32 on every backend.

    JAX's default on recent GPUs rounds their operands to TF32's 10 bits, which moves a log-probability with σ
    = 1 cm by far more than the actor and the learner may differ.
    """
    return products_in("highest")


def check_precision(precision: Precision, backend: str) -> None:
    """Check that a backend computes products as asked.

    Args:
        precision: of the head's products.
        backend: ``jax.default_backend()``.

    Raises:
        ValueError: It does not: XLA's CPU compiler knows no such products, and passes over some in silence.
    """
    if precision != "highest" and backend != "gpu":
        raise ValueError(
            f"algorithm.head_precision={precision} is for a GPU; JAX runs on {backend!r} here, which "
            "would not compute so. Leave it at highest, or give the learner a GPU."
        )


class Linear(nn.Module):
    """``x @ weight.T + bias`` with ``weight [out, in]``."""

    features: int
    use_bias: bool = True
    weight_init: Initializer = zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*B in"], part: slice = slice(None)) -> Float[Array, "*B out"]:
        """Map the last axis of ``x``, in its dtype, from ``in`` to ``out`` features, or to a part of them."""
        weight = self.param("weight", self.weight_init, (self.features, x.shape[-1]))
        y = jnp.einsum("...i,oi->...o", x, weight[part].astype(x.dtype))
        if self.use_bias:
            y = y + self.param("bias", zeros, (self.features,))[part].astype(x.dtype)
        return y
