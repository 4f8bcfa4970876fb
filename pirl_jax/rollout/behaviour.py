"""Behaviour policies: the parameters actors act with, by version."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pirl_jax.typing import PyTree


def round_to(params: PyTree, dtype: str) -> PyTree:
    """What the actor holds after a push in ``dtype``: the rounded values, in the parameters' own dtype.

    A bfloat16 push makes the rounded weights the behaviour policy; scoring its actions with the exact weights
    would be off by far more than PPO's clip range.
    """
    return jax.tree.map(lambda p: jnp.array(p, dtype).astype(p.dtype), params)


@dataclass(frozen=True)
class Behaviour:
    """One pushed version."""

    params: PyTree
    update: int
    """Updates done when it was pushed."""
    level: float
    """Noise level that its actors were given (``modes.level_at``)."""


class Behaviours:
    """The newest pushed versions, as many as ``max_staleness`` allows to act."""

    def __init__(self, max_staleness: int):
        self._keep = max_staleness + 1
        self._by_version: OrderedDict[int, Behaviour] = OrderedDict()

    def add(self, version: int, behaviour: Behaviour) -> None:
        """Remember a version; forget those that are too old to learn from."""
        self._by_version[version] = behaviour
        while len(self._by_version) > self._keep:
            self._by_version.popitem(last=False)

    def get(self, version: int) -> Behaviour | None:
        """Return the version, or None if it was never pushed or is too old."""
        return self._by_version.get(version)
