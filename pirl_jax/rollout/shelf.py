"""Where encoded observations lie until they are learned from: in memory, and beyond a bound in files."""

from __future__ import annotations

import tempfile
import weakref

import jax
import numpy as np

from pirl_jax.typing import PyTree


class Shelf:
    """Keeps arrays in host memory up to a bound, and maps those beyond it from files.

    The files are in ``$TMPDIR`` and have no name: they are gone with the arrays, or with the process.

    Args:
        bound: bytes.
    """

    def __init__(self, bound: float) -> None:
        self._bound, self._held = bound, 0

    def put(self, tree: PyTree) -> PyTree:
        """Return arrays of equal content; they count as held until nobody refers to them."""
        return jax.tree.map(self._put, tree)

    def _put(self, array: np.ndarray) -> np.ndarray:
        if self._held + array.nbytes > self._bound and array.size:
            return _in_file(array)
        self._held += array.nbytes
        weakref.finalize(array, self._let_go, array.nbytes)
        return array

    def _let_go(self, nbytes: int) -> None:
        self._held -= nbytes


def _in_file(array: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryFile(prefix="pirl-rows-") as file:
        mapped = np.memmap(file, array.dtype, "w+", shape=array.shape)
    mapped[...] = array
    return mapped
