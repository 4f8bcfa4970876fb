"""Behaviour policies: the parameters actors act with, by version."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from pirl_jax.typing import Params, PyTree


def rounded(params: PyTree, dtype: str) -> PyTree:
    """Return in float32 what parameters are after a push in ``dtype``.

    A bfloat16 push makes the rounded weights the behaviour policy; scoring its actions with the exact weights
    would be off by far more than PPO's clip range. ``reduce_precision`` and no pair of casts, which a
    compiler may take out.
    """

    def leaf(p: jax.Array) -> jax.Array:
        p = p.astype(jnp.float32)
        return jax.lax.reduce_precision(p, 8, 7) if dtype == "bfloat16" else p

    return jax.tree.map(leaf, params)


@dataclass(frozen=True)
class Behaviour:
    """One pushed version."""

    params: Params
    """The policy's trainable ones; its actors have them as ``rounded`` says. Exact, on the device, or in the
    pushed dtype, on the host."""
    update: int
    """Updates done when it was pushed."""
    level: float
    """Noise level that its actors were given (``modes.level_at``)."""
    dtype: str = "float32"
    """Of the push."""


class Behaviours:
    """The newest pushed versions, as many as ``max_staleness`` allows to act."""

    def __init__(self, max_staleness: int):
        self._keep = max_staleness + 1
        self._by_version: OrderedDict[int, Behaviour] = OrderedDict()

    def add(self, version: int, behaviour: Behaviour) -> None:
        """Remember a version; forget those that are too old to learn from.

        One that may act beyond the next update, which writes over its parameters, is kept on the host.
        """
        if self._keep > 1:
            behaviour = replace(behaviour, params=_on_host(behaviour))
        self._by_version[version] = behaviour
        while len(self._by_version) > self._keep:
            self._by_version.popitem(last=False)

    def get(self, version: int) -> Behaviour | None:
        """Return the version, or None if it was never pushed or is too old."""
        return self._by_version.get(version)

    def let_go(self) -> None:
        """Hold none of the parameters that an update is about to write over."""
        if self._keep == 1:
            self._by_version.clear()


def _on_host(behaviour: Behaviour) -> Params:
    """Return the parameters as NumPy arrays in the pushed dtype, which share nothing with the device's."""
    cast = jax.tree.map(lambda p: jnp.array(p, behaviour.dtype, copy=True), behaviour.params)
    return jax.device_get(cast)
