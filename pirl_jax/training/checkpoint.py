"""Checkpoints: a pytree on disk (Orbax), and the folder LeRobot expects around it.

    <output_dir>/checkpoints/
      000010/
        pretrained_model/      written by the caller's export; the only copy of the weights that do not train
        training_state/
          orbax/               what changes from update to update: weights, critic, optimiser, RNG, counters
          training_step.json   {"step": 10}
      last -> 000010           moved only when everything above is complete

Leaves are stored under their path's names in a plain nested dict, so that a checkpoint opens in any Orbax
without this package, whatever NamedTuples and dataclasses the state is made of.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from pirl_jax.trees import nest

CHECKPOINTS = "checkpoints"
LAST = "last"
PRETRAINED_MODEL = "pretrained_model"
TRAINING_STATE = "training_state"
ORBAX = "orbax"
TRAINING_STEP = "training_step.json"

_BUILDING = ".tmp"
_CONCURRENT_BYTES = 256 * 2**20
"""Ceiling of Orbax's own buffers, beyond the arrays themselves."""
_NAMED_IN_ERROR = 5

Names = tuple[str, ...]


def save(folder: Path | str, tree: Any) -> None:
    """Write a pytree to a new Orbax folder, atomically: the folder appears complete or not at all.

    Args:
        folder: Where to; must not exist.
        tree: Pytree of arrays (JAX, NumPy, typed PRNG keys) and Python numbers. Bits are preserved.

    Raises:
        ValueError: ``folder`` exists.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        raise ValueError(f"{folder} already exists; remove it or save elsewhere.")
    leaves = {names: _to_host(leaf) for names, leaf in _named_leaves(tree)}
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


def load(folder: Path | str) -> dict[str, Any]:
    """Read an Orbax folder as it is: a nested dict of NumPy arrays.

    Raises:
        ValueError: ``folder`` holds no complete Orbax checkpoint.
    """
    folder = Path(folder).absolute()
    leaves = describe(folder)
    abstract = {
        names: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape) for names, leaf in leaves.items()
    }
    with _context():
        return ocp.load(str(folder), nest(abstract.items()))


def restore(folder: Path | str, like: Any) -> Any:
    """Read an Orbax folder into the structure of ``like``, bit for bit.

    Args:
        folder: What :func:`save` wrote.
        like: Pytree with the wanted structure, shapes and dtypes. A leaf decides what comes back in its
            place: ``jax.Array`` or ``ShapeDtypeStruct`` (with its sharding, if it has one), NumPy array,
            typed PRNG key, or Python number.

    Raises:
        ValueError: The trees differ. The message names each path, the shape found and the shape expected.
    """
    stored = describe(folder)
    wanted = dict(_named_leaves(like))
    _compare(Path(folder), stored, {names: _shape_dtype(leaf) for names, leaf in wanted.items()})
    arrays = dict(_named_leaves(load(folder)))
    leaves = [_from_host(arrays.get(names), leaf) for names, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def checkpoint_folder(output_dir: Path | str, step: int, total_steps: int) -> Path:
    """Return ``<output_dir>/checkpoints/000010``, zero-padded as LeRobot's ``get_step_identifier`` does."""
    digits = max(6, len(str(total_steps)))
    return Path(output_dir) / CHECKPOINTS / f"{step:0{digits}d}"


def final_path(path: Path | str) -> Path:
    """Return where a path inside a checkpoint that is being built will be once it is complete.

    For files that have to name their own place; any other path comes back absolute.
    """
    parts = list(Path(path).absolute().parts)
    for index in range(1, len(parts)):
        if parts[index - 1] == CHECKPOINTS:
            parts[index] = parts[index].removesuffix(_BUILDING)
    return Path(*parts)


def read_step(checkpoint: Path | str) -> int:
    """Return the step a checkpoint folder (``…/000010`` or ``…/last``) was written at.

    Raises:
        ValueError: The folder is not a checkpoint.
    """
    file = Path(checkpoint) / TRAINING_STATE / TRAINING_STEP
    try:
        return int(json.loads(file.read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{checkpoint} is no checkpoint of a run: cannot read {file} ({error}).") from error


def snapshot(tree: Any) -> Any:
    """Copy a pytree to host memory; nothing of it aliases device buffers, which the next update donates.

    Typed PRNG keys become their key data.
    """
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and not _is_key(leaf):
            leaf.copy_to_host_async()
    return jax.tree.map(_owned, tree)


class CheckpointError(OSError):
    """A checkpoint could not be written; says where and why."""


class CheckpointWriter:
    """Writes a run's checkpoints in the background, one at a time.

    A checkpoint is built in ``<name>.tmp`` and renamed; only then ``last`` moves, by one atomic rename.
    Killed at any moment, a run leaves ``last`` pointing at a complete checkpoint, and the next writer sweeps
    the leftovers.

    An error in the background surfaces at the next :meth:`save`, :meth:`wait` or :meth:`close`.

    Attributes:
        saved: Step of the newest checkpoint that was begun; None before the first.
    """

    def __init__(self, output_dir: Path | str, total_steps: int):
        """Sweep leftovers of a killed run.

        Args:
            output_dir: The run's folder.
            total_steps: Decides the zero padding of the folders' names.
        """
        self._output_dir = Path(output_dir)
        self._total_steps = total_steps
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.saved: int | None = None
        _sweep(self._output_dir / CHECKPOINTS)

    def save(self, step: int, state: Any, export: Callable[[Path, Any], None]) -> Path:
        """Start writing a checkpoint, after waiting for the previous one.

        Args:
            step: Updates done so far.
            state: What changes from update to update. Copied to the host before this returns, so its device
                buffers may be donated.
            export: Called in the background as ``export(folder, host_state)`` with an empty folder to fill
                with ``pretrained_model``'s files and the host copy of ``state``. It must not touch device
                buffers that may be donated.

        Returns:
            The folder the checkpoint will have.
        """
        self.wait()
        folder = checkpoint_folder(self._output_dir, step, self._total_steps)
        host_state = snapshot(state)
        self._thread = threading.Thread(
            target=self._write, args=(folder, step, host_state, export), name=f"checkpoint-{folder.name}"
        )
        self._thread.start()
        self.saved = step
        return folder

    def wait(self) -> None:
        """Block until no checkpoint is being written.

        Raises:
            CheckpointError: It could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise CheckpointError(
                f"a checkpoint could not be written to {self._output_dir}: {error}"
            ) from error

    def close(self) -> None:
        """Finish the checkpoint being written."""
        self.wait()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _write(self, folder: Path, step: int, state: Any, export: Callable[[Path, Any], None]) -> None:
        start = time.monotonic()
        building = folder.with_name(folder.name + _BUILDING)
        try:
            shutil.rmtree(building, ignore_errors=True)
            (building / TRAINING_STATE).mkdir(parents=True)
            (building / PRETRAINED_MODEL).mkdir()
            export(building / PRETRAINED_MODEL, state)
            save(building / TRAINING_STATE / ORBAX, state)
            (building / TRAINING_STATE / TRAINING_STEP).write_text(json.dumps({"step": step}))
            _put_in_place(building, folder)
            _point_last_at(folder)
        except BaseException as error:  # raised again in the caller's thread by wait()
            self._error = error
            shutil.rmtree(building, ignore_errors=True)
        else:
            logging.info("checkpoint %s written in %.1f s", folder, time.monotonic() - start)


def save_last(writer: CheckpointWriter, step: int, state: Any, export: Callable[[Path, Any], None]) -> None:
    """Save the state a run ended with, whyever it ended, unless it is saved or lost.

    An update works in the memory of the state before it: if it fails half-way, neither is whole.
    """
    if step == writer.saved:
        return
    if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(state)):
        logging.error("step %d cannot be saved: what failed has used its memory", step)
        return
    writer.save(step, state, export)


def _put_in_place(building: Path, folder: Path) -> None:
    """Rename, displacing a checkpoint of the same step (a run resumed from an earlier one meets it again)."""
    displaced = folder.with_name(folder.name + ".old")
    if folder.exists():
        os.replace(folder, displaced)
    os.replace(building, folder)
    shutil.rmtree(displaced, ignore_errors=True)


def _point_last_at(folder: Path) -> None:
    link = folder.with_name(LAST + _BUILDING)
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    os.replace(link, folder.with_name(LAST))


def _sweep(checkpoints: Path) -> None:
    for path in checkpoints.glob("*.old"):
        original = path.with_suffix("")
        if original.exists():
            shutil.rmtree(path)
        else:  # killed between the two renames of `_put_in_place`
            os.replace(path, original)
    for path in checkpoints.glob(f"*{_BUILDING}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _context() -> ocp.Context:
    context = ocp.Context()
    context.memory.write_concurrent_bytes = _CONCURRENT_BYTES
    context.memory.read_concurrent_bytes = _CONCURRENT_BYTES
    context.memory.deepcopy_host_arrays = False  # `save` blocks, so nobody changes them meanwhile
    return context


def _named_leaves(tree: Any) -> list[tuple[Names, Any]]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(tuple(jax.tree_util.keystr((key,), simple=True) for key in path), leaf) for path, leaf in paths]


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf: Any) -> np.ndarray:
    """Return a NumPy array, without a copy where the leaf already lies in host memory."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _owned(leaf: Any) -> Any:
    if not isinstance(leaf, (jax.Array, np.ndarray)):
        return leaf
    host = _to_host(leaf)
    # On a GPU the transfer already made a private copy; on a CPU it is a view of the device buffer.
    on_cpu = isinstance(leaf, np.ndarray) or any(device.platform == "cpu" for device in leaf.devices())
    return host.copy() if on_cpu else host


def _shape_dtype(leaf: Any) -> jax.ShapeDtypeStruct:
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    if not hasattr(leaf, "shape"):
        leaf = np.asarray(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _from_host(array: np.ndarray | None, like: Any) -> Any:
    """Return a stored array as ``like`` is; None was not stored, having no elements."""
    host = np.zeros(_shape_dtype(like).shape, _shape_dtype(like).dtype) if array is None else array
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(host), impl=jax.random.key_impl(like))
    if isinstance(like, jax.Array):
        # An uncommitted array stays so, else the first update would compile a second time.
        return jax.device_put(host, like.sharding if like.committed else None)
    if isinstance(like, jax.ShapeDtypeStruct):
        return jax.device_put(host, like.sharding)
    if isinstance(like, np.ndarray):
        return host
    return type(like)(host[()])


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
