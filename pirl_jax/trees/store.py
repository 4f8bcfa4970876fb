"""A pytree on disk, by Orbax: whole or absent, and bit for bit.

Leaves are stored under their path's names in a plain nested dict, so that a folder opens in any Orbax
without this package, whatever NamedTuples and dataclasses the tree is made of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from pirl_jax.trees import nest

_CONCURRENT_BYTES = 256 * 2**20
"""Ceiling of Orbax's own buffers, beyond the arrays themselves."""
_NAMED_IN_ERROR = 5

Names = tuple[str, ...]


def save(folder: Path | str, tree: Any) -> None:
    """Write a pytree to a new Orbax folder, atomically: the folder appears complete or not at all.

    Args:
        folder: Where to; must not exist.
        tree: Pytree of arrays (JAX or NumPy) and Python numbers. Bits are preserved; what lies in host memory
            is written from where it lies.

    Raises:
        ValueError: ``folder`` exists.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        raise ValueError(f"{folder} already exists; remove it or save elsewhere.")
    leaves = {names: np.asarray(leaf) for names, leaf in _named_leaves(tree)}
    # Orbax refuses arrays without elements; `restore` makes them anew from the shape.
    with _context():
        ocp.save(str(folder), nest((names, leaf) for names, leaf in leaves.items() if leaf.size))


def describe(folder: Path | str) -> dict[Names, jax.ShapeDtypeStruct]:
    """Return the shape and dtype of every stored leaf by its path, without reading the arrays.

    Raises:
        ValueError: ``folder`` holds no complete Orbax checkpoint.
    """
    folder = Path(folder).absolute()
    try:
        metadata = ocp.metadata(str(folder)).metadata
    except (ocp.errors.InvalidLayoutError, OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder} is not a complete Orbax checkpoint; give the folder one was saved to."
        ) from error
    return {names: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for names, leaf in _named_leaves(metadata)}


def load(folder: Path | str, only: Collection[str] | None = None) -> dict[str, Any]:
    """Read an Orbax folder as it is: a nested dict of NumPy arrays.

    Args:
        folder: What :func:`save` wrote.
        only: The branches to read, by their top-level names; None reads all.

    Raises:
        ValueError: ``folder`` holds no complete Orbax checkpoint.
    """
    folder = Path(folder).absolute()
    abstract = {
        # Shape and dtype are all that matters here; zeros that take no room have both.
        names: ocp.PLACEHOLDER
        if only is not None and names[0] not in only
        else np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
        for names, leaf in describe(folder).items()
    }
    with _context():
        loaded = ocp.load(str(folder), nest(abstract.items()))
    return {name: branch for name, branch in loaded.items() if only is None or name in only}


def restore(folder: Path | str, like: Any) -> Any:
    """Read an Orbax folder into the structure of ``like``, bit for bit.

    Args:
        folder: What :func:`save` wrote.
        like: Pytree with the wanted structure, shapes and dtypes. A leaf decides what comes back in its
            place: ``jax.Array`` or ``ShapeDtypeStruct`` (with its sharding, if it has one), NumPy array, or
            Python number.

    Raises:
        ValueError: The trees differ. The message names each path, the shape found and the shape expected.
    """
    stored = describe(folder)
    wanted = dict(_named_leaves(like))
    _compare(Path(folder), stored, {names: _shape_dtype(leaf) for names, leaf in wanted.items()})
    arrays = dict(_named_leaves(load(folder)))
    # Each is let go once it is on the device: two copies of all would not fit beside a large policy.
    leaves = [_from_host(arrays.pop(names, None), leaf) for names, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _context() -> ocp.Context:
    context = ocp.Context()
    context.memory.write_concurrent_bytes = _CONCURRENT_BYTES
    context.memory.read_concurrent_bytes = _CONCURRENT_BYTES
    # Of weights compression saves a fourteenth of the space, takes three times as long and holds all it has
    # written in memory until the end.
    context.array.saving.use_compression = False
    context.memory.deepcopy_host_arrays = False  # `save` blocks, so nobody changes them meanwhile
    return context


def _named_leaves(tree: Any) -> list[tuple[Names, Any]]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(tuple(jax.tree_util.keystr((key,), simple=True) for key in path), leaf) for path, leaf in paths]


def _shape_dtype(leaf: Any) -> jax.ShapeDtypeStruct:
    if not hasattr(leaf, "shape"):
        leaf = np.asarray(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _from_host(array: np.ndarray | None, like: Any) -> Any:
    """Return a stored array as ``like`` is; None was not stored, having no elements."""
    host = np.zeros(_shape_dtype(like).shape, _shape_dtype(like).dtype) if array is None else array
    if isinstance(like, jax.Array):
        # An uncommitted array stays so, else the first update would compile a second time.
        return _on_device(host, like.sharding if like.committed else None)
    if isinstance(like, jax.ShapeDtypeStruct):
        return _on_device(host, like.sharding)
    if isinstance(like, np.ndarray):
        return host
    return type(like)(host[()])


def _on_device(host: np.ndarray, sharding: Any) -> jax.Array:
    # On a CPU `device_put` may take NumPy's memory for its own, which an update that is given it cannot use.
    return jnp.copy(jax.device_put(host, sharding)).block_until_ready()


def _compare(
    folder: Path, stored: Mapping[Names, jax.ShapeDtypeStruct], wanted: Mapping[Names, jax.ShapeDtypeStruct]
) -> None:
    differences = []
    for names, want in wanted.items():
        got = stored.get(names)
        if got is None:
            if 0 not in want.shape:
                differences.append(f"{'.'.join(names)} is missing (expected {_show(want)})")
        elif got.shape != want.shape or got.dtype != want.dtype:
            differences.append(f"{'.'.join(names)} is {_show(got)}, expected {_show(want)}")
    unexpected = [names for names in stored if names not in wanted]
    differences += [f"{'.'.join(names)} is not expected ({_show(stored[names])})" for names in unexpected]
    if differences:
        more = len(differences) - _NAMED_IN_ERROR
        listed = "; ".join(differences[:_NAMED_IN_ERROR]) + (f"; and {more} more" if more > 0 else "")
        raise ValueError(
            f"{folder} does not fit this run: {listed}. Resume with the policy and the recipe that wrote it "
            "(its train_config.json), or start a new run."
        )


def _show(leaf: jax.ShapeDtypeStruct) -> str:
    return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
