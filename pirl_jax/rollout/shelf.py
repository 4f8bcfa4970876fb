"""Where encoded observations lie until they are learned from: in memory, and beyond a bound in files."""

from __future__ import annotations

import os
import tempfile
import weakref

import jax
import numpy as np

from pirl_jax.typing import PyTree

_SLAB = 2**28
"""Bytes of a file, which holds many arrays: each that is mapped costs a descriptor."""
_ALIGNMENT = 64


class Shelf:
    """Keeps arrays in host memory up to a bound, and maps those beyond it from files.

    The files are in ``$TMPDIR`` and have no name: they are gone with the arrays, or with the process.

    Args:
        bound: bytes.
    """

    def __init__(self, bound: float) -> None:
        self._bound, self._held = bound, 0
        self._slab, self._used = np.empty(0, np.uint8), 0

    def put(self, tree: PyTree) -> PyTree:
        """Return arrays of equal content; they count as held until nobody refers to them.

        Raises:
            OSError: The disk is full.
        """
        return jax.tree.map(self._put, tree)

    def _put(self, array: np.ndarray) -> np.ndarray:
        if self._held + array.nbytes > self._bound and array.size:
            return self._in_file(array)
        self._held += array.nbytes
        weakref.finalize(array, self._let_go, array.nbytes)
        return array

    def _let_go(self, nbytes: int) -> None:
        self._held -= nbytes

    def _in_file(self, array: np.ndarray) -> np.ndarray:
        if self._used + array.nbytes > len(self._slab):
            self._slab, self._used = _mapped(max(_SLAB, array.nbytes)), 0
        place = self._slab[self._used : self._used + array.nbytes].view(array.dtype).reshape(array.shape)
        self._used += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        place[...] = array
        return place


def _mapped(nbytes: int) -> np.ndarray:
    """Return the bytes of a new file, which has room for all of them."""
    with tempfile.TemporaryFile(prefix="pirl-rows-") as file:
        os.posix_fallocate(file.fileno(), 0, nbytes)  # else a full disk would be a bus error, later
        return np.memmap(file, np.uint8, "r+", shape=(nbytes,))
