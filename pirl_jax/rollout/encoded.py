"""Observations that were encoded to act on, kept until their episodes are scored."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from pirl_jax.typing import Features, Int, PyTree, UInt8, typed

_KEYS = 1 << 32


@typed
def digest(images: UInt8[np.ndarray, "V C h w"], tokens: Int[np.ndarray, " N"]) -> bytes:
    """Return what tells an observation from others, as far as its features go: 16 bytes of BLAKE2b.

    Args:
        images: as they are sent, the views in the policy's order.
        tokens: of the instruction, in integers of any width.
    """
    found = hashlib.blake2b(digest_size=16)
    for array in (images, tokens.astype("<i8")):
        found.update(repr(array.shape).encode())
        found.update(np.ascontiguousarray(array).data)
    return found.digest()


@dataclass(frozen=True)
class Stats:
    """How a store stands."""

    evicted: int = 0
    """Rows that went before anybody took them, since it was made."""
    held_bytes: int = 0
    """Of the rows that are in it."""


class _Row(NamedTuple):
    features: Features
    digest: bytes
    nbytes: int


def _row(features: PyTree, i: int, digest: bytes) -> _Row:
    """Copy a row: a view would hold the whole block."""
    row = jax.tree.map(lambda leaf: np.array(leaf[i : i + 1]), features)
    return _Row(row, digest, sum(leaf.nbytes for leaf in jax.tree.leaves(row)))


class Encoded:
    """Features by key, in host memory: a server puts what it acts on, the scorer takes it.

    It may be used from several threads. When it is full the oldest rows go, and who asks for one encodes
    again.

    Args:
        bound: bytes of features that are held at most.
    """

    def __init__(self, bound: float) -> None:
        self._bound, self._next = bound, 1
        self._rows: OrderedDict[int, _Row] = OrderedDict()
        self._stats, self._lock = Stats(), threading.Lock()

    def put(self, features: PyTree, digests: Sequence[bytes | None]) -> list[int]:
        """Keep copies of rows.

        Args:
            features: of B observations, arrays in host memory with leading dimension B or more; rows beyond
                B, which fill a block, are left out.
            digests: of the B observations (``digest``); None: this one is not kept.

        Returns:
            Their keys, in [1, 2^32), 0 for those not kept; a key is used again after 2^32 rows.
        """
        rows = [None if name is None else _row(features, i, name) for i, name in enumerate(digests)]
        with self._lock:
            return [0 if row is None else self._keep(row) for row in rows]

    def take(self, key: int, digest: bytes) -> Features | None:
        """Return an observation's features, with a leading dimension of 1, and let go of them.

        Args:
            key: as ``put`` has returned it; 0 is nobody's.
            digest: of the observation. A key may have come from another process, where it meant another one.

        Returns:
            None if they are not here; whatever else has the key stays.
        """
        if not key:
            return None
        with self._lock:
            row = self._rows.get(key)
            if row is None or row.digest != digest:
                return None
            del self._rows[key]
            self._count(held_bytes=-row.nbytes)
            return row.features

    def stats(self) -> Stats:
        """Return how it stands."""
        with self._lock:
            return self._stats

    def _keep(self, row: _Row) -> int:
        key, self._next = self._next, self._next % (_KEYS - 1) + 1
        if key in self._rows:  # of 2^32 rows ago
            self._evict(key)
        self._rows[key] = row
        self._count(held_bytes=row.nbytes)
        while self._stats.held_bytes > self._bound:
            self._evict(next(iter(self._rows)))
        return key

    def _evict(self, key: int) -> None:
        self._count(held_bytes=-self._rows.pop(key).nbytes, evicted=1)

    def _count(self, held_bytes: int, evicted: int = 0) -> None:
        before = self._stats
        self._stats = Stats(before.evicted + evicted, before.held_bytes + held_bytes)
