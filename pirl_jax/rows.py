"""Rows in host memory, of which a device gets as many as it works on at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from pirl_jax.typing import PyTree


class Joined:
    """Arrays laid end to end, without a copy of them all: a leaf of a pytree of rows.

    Args:
        parts: at least one, alike in all axes but the first.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return a copy of rows, by their numbers."""
        first = self._parts[0]
        taken = np.empty((len(rows), *first.shape[1:]), first.dtype)
        where = np.searchsorted(self._ends, rows, side="right")
        for i, (part, row) in enumerate(zip(where, rows)):
            taken[i] = self._parts[part][row - self._ends[part]]  # counted from its end
        return taken


def cut(tree: PyTree, rows: np.ndarray) -> PyTree:
    """Return the rows of these numbers, of a pytree of arrays and ``Joined``, in host memory."""
    return jax.tree.map(lambda leaf: leaf[rows], on_host(tree))


def on_host(tree: PyTree) -> PyTree:
    """Return a pytree whose device arrays are NumPy's."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


def in_blocks(
    function: Callable[[PyTree], PyTree],
    tree: PyTree,
    count: int,
    size: int,
    put: Callable[[PyTree], PyTree] = jax.device_put,
) -> PyTree:
    """Return ``function`` of the first ``count`` rows, computed ``size`` at a time, in host memory.

    Args:
        function: rows → arrays with as many; on the device.
        tree: the rows.
        count: at least 1.
        size: rows at a time; what is missing in the last block is filled by repeating its last row.
        put: rows in host memory → on the device, or on several that share them.
    """
    blocks, waiting = [], None
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        running = function(put(cut(tree, rows)))
        if waiting is not None:  # fetched while the next one runs
            blocks.append(jax.device_get(waiting))
        waiting = running
    blocks.append(jax.device_get(waiting))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *blocks)
