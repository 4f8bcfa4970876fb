"""On a CPU, products in the precisions that only a GPU has: operands are rounded and split by hand.

XLA's CPU compiler computes ``BF16_…`` products in float32, without a word, and refuses ``TF32_…`` ones. Once
this module is imported, it gets in their place the products that the algorithm stands for. The change is made
where a product is handed to the compiler, so that gradients, loops and rematerialised blocks need no thought.

What a GPU does may differ in two ways: it may cut an operand off instead of rounding it to the nearest (twice
the error), and it adds up in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# The rule that JAX registers for the CPU; there is no public name for it, and every other product needs it.
from jax._src.lax.lax import _dot_general_lower
from jax.interpreters import mlir

from pirl_jax.typing import Array

BF16, TF32 = 7, 10
"""Bits of the mantissa, which has one more in front of the point."""
EXPONENT_BITS = 8


def rounded(x: Array, bits: int) -> Array:
    """Return float32 numbers rounded to the nearest with so many bits of mantissa, ties to even."""
    return jax.lax.reduce_precision(x, EXPONENT_BITS, bits)


def split(x: Array, bits: int, parts: int) -> list[Array]:
    """Return numbers of so many bits of mantissa that add up to ``x`` all but exactly, the largest first."""
    found, rest = [], x
    for _ in range(parts):
        found.append(rounded(rest, bits))
        rest = rest - found[-1]
    return found


def _product(bits: int, parts: int) -> Callable[..., Array]:
    """Return ``dot_general`` on operands of so many parts each.

    Of two parts three products count, of three six: those of (i, j) with i + j < ``parts``. They are added up
    from the smallest on, as XLA does.
    """

    def product(a: Array, b: Array, **how: Any) -> Array:
        a_parts, b_parts = split(a, bits, parts), split(b, bits, parts)
        pairs = [(i, j) for i in range(parts) for j in range(parts) if i + j < parts]
        total = jnp.float32(0)
        for i, j in sorted(pairs, key=lambda pair: -sum(pair)):
            total += jax.lax.dot_general(a_parts[i], b_parts[j], precision=jax.lax.Precision.HIGHEST, **how)
        return total

    return product


Algorithm = jax.lax.DotAlgorithmPreset
PRODUCTS: dict[Any, Callable[..., Array]] = {
    Algorithm.BF16_BF16_F32: _product(BF16, 1),
    Algorithm.BF16_BF16_F32_X3: _product(BF16, 2),
    Algorithm.BF16_BF16_F32_X6: _product(BF16, 3),
    Algorithm.TF32_TF32_F32: _product(TF32, 1),
    Algorithm.TF32_TF32_F32_X3: _product(TF32, 2),
}


def _lower(ctx: Any, a: Any, b: Any, *, precision: Any, **how: Any) -> Any:
    if precision not in PRODUCTS:
        return _dot_general_lower(ctx, a, b, precision=precision, platform="cpu", **how)
    assert all(aval.dtype == jnp.float32 for aval in (*ctx.avals_in, *ctx.avals_out)), ctx.avals_in
    emulated = mlir.lower_fun(PRODUCTS[precision], multiple_results=False)
    return emulated(ctx, a, b, **how)


mlir.register_lowering(jax.lax.dot_general_p, _lower, platform="cpu")
