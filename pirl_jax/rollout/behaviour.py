"""Behaviour policies: the parameters actors act with, by version."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from pirl_jax.files import write_text
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
        while len({b.update for b in self._by_version.values()}) > self._keep:
            self._by_version.popitem(last=False)

    def get(self, version: int) -> Behaviour | None:
        """Return the version, or None if it was never pushed or is too old."""
        return self._by_version.get(version)

    @property
    def oldest(self) -> int:
        """The oldest version remembered."""
        return next(iter(self._by_version))


class Versions:
    """Numbers for pushed versions: ≥ 1, increasing, never given twice even if the learner is killed.

    A crash loses the updates since the last checkpoint but not the actors that hold their parameters: a
    number that came back would pass one policy's actions off as another's. So numbers are reserved on disk a
    block at a time.
    """

    _BLOCK = 1000

    def __init__(self, file: Path):
        self._file = file
        self._next = (int(file.read_text()) if file.exists() else 0) + 1
        self._reserved = self._next - 1

    def next(self) -> int:
        """Return a number that no earlier call, in this process or before it, has returned."""
        if self._next > self._reserved:
            self._reserved = self._next + self._BLOCK - 1
            write_text(self._file, str(self._reserved))
        self._next += 1
        return self._next - 1
