"""Means of metrics over the steps of a loop inside a compiled function."""

from __future__ import annotations

import jax.numpy as jnp

from pirl_jax.typing import Array, Metrics


def zeros(*names: str) -> Metrics:
    """Return sums of nothing yet, and their count ``n``."""
    return {name: jnp.float32(0) for name in (*names, "n")}


def add_if(condition: Array, sums: Metrics, metrics: Metrics) -> Metrics:
    """Return the sums with ``metrics`` added where the condition, a scalar, holds."""
    terms = {**metrics, "n": jnp.float32(1)}
    return {
        name: total + jnp.where(condition, terms[name], 0.0).astype(total.dtype)
        for name, total in sums.items()
    }


def means(sums: Metrics) -> Metrics:
    """Return the means of what was added; 0 of nothing."""
    count = jnp.maximum(sums["n"], 1.0)
    return {name: total / count for name, total in sums.items() if name != "n"}
