"""Checkpoints of a run, written beside its training (``run_folder`` has their layout)."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from pirl_jax.console.progress import LONG_S, working
from pirl_jax.run_folder import manifest
from pirl_jax.run_folder.layout import (
    BEST,
    BUILDING,
    CHECKPOINTS,
    LAST,
    ORBAX,
    PRETRAINED_MODEL,
    TRAINING_STATE,
    TRAINING_STEP,
    checkpoint_folder,
    mend_last,
    point,
    put_in_place,
    read_about,
    sweep,
    write_about,
)
from pirl_jax.run_folder.retention import Retention, best_of, prune
from pirl_jax.trees import store

logger = logging.getLogger(__name__)

RETRY_S = 30.0
"""Seconds between a checkpoint that could not be written and the next try."""
FORESEEN = 2
"""Checkpoints that the disk should have room for; with less it is said."""

_FULL = os.strerror(errno.ENOSPC)

Export = Callable[[Path, Any], None]


def restore(checkpoint: Path | str, like: Any) -> Any:
    """Read the state of a checkpoint folder, see ``store.restore``."""
    return store.restore(Path(checkpoint) / TRAINING_STATE / ORBAX, like)


def in_host_memory(tree: Any) -> Any:
    """Return a pytree's arrays in host memory, once they are there; on a CPU they are the arrays themselves.

    JAX does not write over a buffer that somebody looks at: an update that was given one takes new memory.
    """
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    return jax.tree.map(np.asarray, tree)


def reason(error: BaseException) -> str:
    """Say why a checkpoint could not be written; Orbax's own words for a full disk are a screenful."""
    return "the disk is full" if _FULL in str(error) else str(error)


class CheckpointError(OSError):
    """A checkpoint could not be written; says where and why."""


class CheckpointWriter:
    """Writes a run's checkpoints in the background, one at a time.

    A checkpoint is built in ``<name>.tmp`` and renamed; only then ``last`` moves, by one atomic rename, and
    what is not kept goes. Killed at any moment, a run leaves ``last`` pointing at a complete checkpoint, and
    the next writer sweeps the leftovers. (One that was just taking the place of another of its step is put
    back by ``run_folder.layout.mend``.)

    One that cannot be written is reported at once and costs the run nothing else: the caller tries again,
    with a newer state, when ``to_be_tried_again`` says so. If it was the last, :meth:`close` raises. A
    process that ends without it leaves unfinished what was being written.

    Attributes:
        saved: Step of the newest checkpoint that is written, or is being written; None before the first, and
            after one that could not be.
        seconds: That the newest checkpoint took which is written.
    """

    def __init__(
        self, output_dir: Path | str, total_steps: int, retention: Retention, saved: int | None = None
    ):
        """Sweep leftovers of a killed run, and make the links that it was killed before it made.

        Args:
            output_dir: The run's folder.
            total_steps: Decides the zero padding of the folders' names.
            retention: What is kept.
            saved: Step of the checkpoint that the run goes on from; None: it begins.
        """
        self._output_dir = Path(output_dir)
        self._total_steps = total_steps
        self._retention = retention
        self._thread: threading.Thread | None = None
        self._read = threading.Event()
        self._read.set()
        self._error: BaseException | None = None
        self._failed_at = 0.0
        self._size = 0
        """Bytes of the checkpoint that was written last."""
        self.saved = saved
        self.seconds = 0.0
        self._output_dir.mkdir(parents=True, exist_ok=True)
        checkpoints = self._output_dir / CHECKPOINTS
        sweep(checkpoints)
        mend_last(checkpoints)
        if best := best_of(checkpoints):
            point(BEST, best)

    def save(
        self, step: int, state: Any, export: Export, about: Mapping[str, Any] = MappingProxyType({})
    ) -> Path:
        """Start writing a checkpoint, after waiting for the previous one.

        Args:
            step: Updates done so far.
            state: What changes from update to update; read in the background, see :meth:`release`.
            export: Called in the background as ``export(folder, host_state)`` with an empty folder to fill
                with ``pretrained_model``'s files and ``state`` in host memory. It must not touch device
                buffers that may be donated.
            about: Written beside the step: what a later reader may want to know. Which checkpoint is the best
                follows from it (``run_folder.retention.best_of``).

        Returns:
            The folder the checkpoint will have.
        """
        if self._thread is not None:
            self._thread.join()
        self._error = None
        folder = checkpoint_folder(self._output_dir, step, self._total_steps)
        self._read.clear()
        self._thread = threading.Thread(
            target=self._write,
            args=(folder, state, export, {**about, "step": step}),
            name=f"checkpoint-{folder.name}",
        )
        self.saved = step
        self._thread.start()
        return folder

    def add(self, step: int, about: Mapping[str, Any]) -> None:
        """Have the newest checkpoint say more of itself, once it is written; none if it is of another step.

        Args:
            step: Of the checkpoint.
            about: As for :meth:`save`.
        """
        self._thread = threading.Thread(target=self._add, args=(self._thread, step, about), name="about")
        self._thread.start()

    @property
    def to_be_tried_again(self) -> bool:
        """The last checkpoint could not be written, and not just now."""
        return self._error is not None and time.monotonic() - self._failed_at > RETRY_S

    def release(self) -> None:
        """Block until the state that is being saved may be donated."""
        self._read.wait()

    def wait(self) -> None:
        """Block until no checkpoint is being written.

        Raises:
            CheckpointError: It could not be written.
        """
        if self._thread is not None:
            self._thread.join(LONG_S)
            if self._thread.is_alive():
                with working(f"writing the checkpoint of {self.saved}"):
                    self._thread.join()
            self._thread = None
        if self._error is not None:
            raise CheckpointError(
                f"the last checkpoint could not be written to {self._output_dir}: {reason(self._error)}"
            ) from self._error

    def close(self) -> None:
        """Finish the checkpoint being written."""
        self.wait()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _write(self, folder: Path, state: Any, export: Export, about: Mapping[str, Any]) -> None:
        start = time.monotonic()
        building = folder.with_name(folder.name + BUILDING)
        try:
            self._check_room()
            state = in_host_memory(state)
            self._read.set()
            shutil.rmtree(building, ignore_errors=True)
            (building / TRAINING_STATE).mkdir(parents=True)
            (building / PRETRAINED_MODEL).mkdir()
            with ThreadPoolExecutor(1, "state") as beside:
                stored = beside.submit(store.save, building / TRAINING_STATE / ORBAX, state)
                export(building / PRETRAINED_MODEL, state)
                stored.result()
            write_about(building, about)
            manifest.seal(building)
            self._size = sum(path.stat().st_size for path in building.rglob("*") if path.is_file())
            put_in_place(building, folder)
            point(LAST, folder)
            self._tidy(folder, int(about["step"]))
        except BaseException as error:  # raised again in the caller's thread by wait()
            self._error, self._failed_at, self.saved = error, time.monotonic(), None
            shutil.rmtree(building, ignore_errors=True)
            logger.error("checkpoint %s could not be written: %s. It is tried again.", folder, reason(error))
        else:
            self.seconds = time.monotonic() - start
            logger.info("checkpoint %s written in %.1f s", folder, self.seconds)
            self._warn_of_little_room()
        finally:
            self._read.set()

    def _add(self, before: threading.Thread | None, step: int, about: Mapping[str, Any]) -> None:
        if before is not None:
            before.join()
        folder = checkpoint_folder(self._output_dir, step, self._total_steps)
        if step != self.saved or not folder.exists():
            return
        try:
            with manifest.rewriting(folder, [f"{TRAINING_STATE}/{TRAINING_STEP}"]):
                write_about(folder, {**read_about(folder), **about})
        except (OSError, ValueError) as error:
            logger.warning("checkpoint %s cannot be told %s: %s", folder, about, error)
        self._tidy(folder, step)

    def _check_room(self) -> None:
        """Begin nothing that would fill the disk.

        Raises:
            OSError: Another checkpoint like the last one has no room.
        """
        free = shutil.disk_usage(self._output_dir).free
        if free < self._size:
            raise OSError(f"it takes {self._size / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB left")

    def _warn_of_little_room(self) -> None:
        free = shutil.disk_usage(self._output_dir).free
        if free < FORESEEN * self._size:
            logger.warning(
                "the disk of %s has %.1f GB left, and a checkpoint takes %.1f GB while it is written: make "
                "room before the next",
                self._output_dir,
                free / 1e9,
                self._size / 1e9,
            )

    def _tidy(self, folder: Path, step: int) -> None:
        """Point at the best and remove what is not kept: trouble with others' files costs no checkpoint."""
        try:
            if best := best_of(folder.parent):
                point(BEST, best)
            prune(folder.parent, step, self._retention)
        except OSError as error:
            logger.warning("checkpoint %s is complete; older ones could not be tidied up: %s", folder, error)


def save_last(
    writer: CheckpointWriter,
    step: int,
    state: Any,
    export: Export,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Save the state a run ended with, whyever it ended, unless it is saved or lost.

    An update works in the memory of the state before it: if it fails half-way, neither is whole.
    """
    if step == writer.saved:
        return
    if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(state)):
        logger.error("step %d cannot be saved: what failed has used its memory", step)
        return
    writer.save(step, state, export, about)
