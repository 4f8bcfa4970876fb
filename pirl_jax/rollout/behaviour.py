"""Behaviour policies: the parameters actors act with, by version."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.typing import Params, PyTree


def version_of(updates: int) -> int:
    """Return the version that the policy after so many updates is pushed under: the first is 1.

    It is unique within a learner's process, and an episode says which process it was assigned by.
    """
    return updates + 1


def updates_of(version: int) -> int:
    """Return the updates that a version's policy has had."""
    return version - 1


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
    """The newest pushed versions, as many as ``max_staleness`` allows to act.

    Attributes:
        newest: Version that was pushed last; 0 before the first.
    """

    def __init__(self, max_staleness: int):
        self._keep, self.newest = max_staleness + 1, 0
        self._by_version: OrderedDict[int, Behaviour] = OrderedDict()

    def add(self, version: int, behaviour: Behaviour, pushed: Behaviour) -> None:
        """Remember a version; forget those that are too old to learn from.

        Args:
            version: its number.
            behaviour: as it is trained, on the device.
            pushed: the same ``as_pushed``. It is what is kept if the version may act beyond the next update,
                which writes over the other's parameters.
        """
        self._by_version[version] = behaviour if self._keep == 1 else pushed
        self.newest = version
        while len(self._by_version) > self._keep:
            self._by_version.popitem(last=False)

    def get(self, version: int) -> Behaviour | None:
        """Return the version, or None if it was never pushed or is too old."""
        return self._by_version.get(version)

    def of(self, versions: np.ndarray) -> dict[int, Behaviour]:
        """Return who chose an episode's chunks, by version: those of them that are not too old.

        Args:
            versions: of the chunks. If one is newer than any that was pushed, nothing is returned: it is not
                known what the episode was played with.
        """
        found = {version: self.get(version) for version in map(int, np.unique(versions))}
        if max(found) > self.newest:
            return {}
        return {version: behaviour for version, behaviour in found.items() if behaviour is not None}

    def let_go(self) -> None:
        """Hold none of the parameters that an update is about to write over."""
        if self._keep == 1:
            self._by_version.clear()


def as_pushed(behaviour: Behaviour) -> Behaviour:
    """Return a policy with its parameters in host memory, in the pushed dtype.

    On a CPU float32 parameters are the device's own: JAX does not write over what somebody looks at.
    """
    dtype = jnp.dtype(behaviour.dtype)
    params = jax.tree.map(lambda leaf: np.asarray(jnp.asarray(leaf, dtype)), behaviour.params)
    return replace(behaviour, params=params)
