"""What a checkpoint consists of: a file that is not as it was written is found before it is read."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pirl_jax.files import digest, flush, read_json, write_json
from pirl_jax.run_folder.layout import CHECKPOINTS, LAST, mend, steps

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FILES = "files"
_LARGE = 2**20
_AT_ONCE = 4
"""Files whose writing is waited for."""


class DamageError(ValueError):
    """A checkpoint is not as it was written; says which file, and what to do."""


def seal(folder: Path) -> None:
    """List every file of a folder in its manifest, once all of it has reached the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())

    def on_disk(path: Path) -> tuple[str, list[Any]]:
        flush(path)
        return path.relative_to(folder).as_posix(), [path.stat().st_size, digest(path)]

    # While the disk is waited for, others are read for their digests.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        listed = dict(pool.map(on_disk, files))
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        flush(path)
    write_json(folder / MANIFEST, {FILES: listed})
    flush(folder)


def remove(folder: Path, name: str) -> None:
    """Remove a file of a checkpoint: from the manifest first, so that at no moment one is missed."""
    with contextlib.suppress(DamageError):
        listed = _listed(folder)
        if listed.pop(name, None) is not None:
            write_json(folder / MANIFEST, {FILES: listed})
    (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def rewriting(folder: Path, names: Collection[str]) -> Iterator[None]:
    """Let files of a checkpoint be written anew: they are not listed meanwhile, and as they are then after.

    Args:
        folder: with a manifest.
        names: of the files, as ``pretrained_model/config.json``; those that it does not list stay unlisted.

    Raises:
        DamageError: One of them is not as it was written.
    """
    listed = _listed(folder)
    names = [name for name in names if name in listed]
    for name in names:
        size, sha256 = listed.pop(name)
        path = folder / name
        if not path.is_file() or path.stat().st_size != size or digest(path) != sha256:
            raise DamageError(f"{path} is damaged: it is not as it was written. {_others(folder)}")
    write_json(folder / MANIFEST, {FILES: listed})
    yield
    listed |= {name: [(folder / name).stat().st_size, digest(folder / name)] for name in names}
    write_json(folder / MANIFEST, {FILES: listed})


def damage(folder: Path, quick: bool = False) -> str | None:
    """Say what of a checkpoint is not as it was written; None if all of it is.

    Files that the manifest does not list are not looked at.

    Args:
        folder: the checkpoint.
        quick: of a file over a MiB only the size is looked at.
    """
    try:
        for name, (size, sha256) in _listed(folder).items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if (found := path.stat().st_size) != size:
                return f"{name} has {found} bytes instead of {size}"
            if not (quick and size > _LARGE) and digest(path) != sha256:
                return f"{name} has other content than was written"
    except (DamageError, OSError) as error:
        return str(error)
    return None


def check(folder: Path) -> None:
    """Check that a checkpoint is as it was written.

    Raises:
        DamageError: It is not.
    """
    if reason := damage(folder):
        raise DamageError(f"{folder} is damaged: {reason}. {_others(folder)}")


def whole(path: Path, quick: bool = False) -> Path:
    """Return the path of a checkpoint's file from which a run may go on.

    Where ``last`` leads to a checkpoint that is damaged, that is the same file of the newest one that is not.

    Args:
        path: as ``<output_dir>/checkpoints/last/pretrained_model/train_config.json``.
        quick: see ``damage``: for who reads but the config.

    Raises:
        DamageError: A checkpoint that was named by its step is damaged, or all are.
    """
    mend(path)
    absolute = path.absolute()
    folder = next((part for part in absolute.parents if part.parent.name == CHECKPOINTS), None)
    if folder is None or not folder.exists():
        return path  # whoever reads it says what is wrong with it
    reason = damage(folder, quick)
    if reason is None:
        return path
    if folder.name != LAST:
        check(folder)
    damaged = folder.resolve()
    for _, other in sorted(steps(folder.parent), reverse=True):
        if other != damaged and damage(other, quick) is None:
            logger.warning(
                "%s is damaged: %s. Going on from %s, the newest checkpoint that is whole.",
                damaged,
                reason,
                other,
            )
            return other / absolute.relative_to(folder)
    raise DamageError(f"{damaged} is damaged: {reason}. {_others(damaged)}")


def _listed(folder: Path) -> dict[str, list[Any]]:
    """Return what belongs to a folder: path in it → [bytes, SHA-256]."""
    try:
        files = read_json(folder / MANIFEST)[FILES]
        if all(isinstance(size, int) and isinstance(sha256, str) for size, sha256 in files.values()):
            return files
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise DamageError(f"{MANIFEST} does not say what belongs to it")


def _others(folder: Path) -> str:
    sound = [
        str(step)
        for step, other in sorted(steps(folder.parent))
        if other != folder.resolve() and damage(other) is None
    ]
    if not sound:
        return "No other checkpoint of this run is whole: start it anew, or from an export of it."
    return f"Whole are those of step {', '.join(sound)}: name one of them."
