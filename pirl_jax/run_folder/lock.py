"""One process at a time writes to a run's folder, and one that has nothing to show leaves none behind."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pirl_jax.run_folder.layout import CHECKPOINTS, METRICS, TRACEBACK, steps

logger = logging.getLogger(__name__)

LOCK = ".lock"
_ASIDE = ".without_checkpoint"


@contextmanager
def occupied(output_dir: Path) -> Iterator[None]:
    """Make a run's folder, and keep every other run out of it.

    Afterwards the folder goes if there is neither a checkpoint nor a line of metrics in it: it would be in
    the way of the same command. The lock is the process's, and ends with it however that is killed.

    Raises:
        ValueError: Another process writes to it; says which.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with (output_dir / LOCK).open("a+") as file:
        _take(file.fileno(), output_dir)
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            if _is_empty(output_dir):
                shutil.rmtree(output_dir)


def was_ours(output_dir: Path) -> bool:
    """Tell whether this process was the last to occupy a folder, and has left it there."""
    lock = output_dir / LOCK
    return lock.exists() and lock.read_text().strip() == str(os.getpid())


def set_aside(output_dir: Path) -> None:
    """Make way for a run that starts anew where one ended before its first checkpoint.

    LeRobot starts in no folder that exists, and there is nothing to resume. What is in it is kept under
    another name, unless it is nothing. Folders of others stay as they are.

    Raises:
        ValueError: Another process writes to it, or it is no folder.
    """
    if output_dir.is_file():
        raise ValueError(f"output_dir={output_dir} is a file. Give another --output_dir.")
    ours = any((output_dir / name).exists() for name in (LOCK, METRICS, TRACEBACK))
    if not ours or any(True for _ in steps(output_dir / CHECKPOINTS)):
        return
    if (output_dir / LOCK).exists():
        with (output_dir / LOCK).open("r") as file:
            _take(file.fileno(), output_dir)
    if _is_empty(output_dir):
        shutil.rmtree(output_dir)
        return
    number = 1
    while (aside := output_dir.with_name(f"{output_dir.name}{_ASIDE}-{number}")).exists():
        number += 1
    os.replace(output_dir, aside)
    logger.warning("%s held a run that ended before its first checkpoint; it is %s now", output_dir, aside)


def _take(descriptor: int, output_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = (output_dir / LOCK).read_text().strip()
        raise ValueError(
            f"another run writes to {output_dir} (process {owner or 'unknown'}). Stop it, or give another "
            "--output_dir."
        ) from error


def _is_empty(output_dir: Path) -> bool:
    """Tell whether nothing that a run has made is in its folder: a lock, lines without content, folders."""
    files = [path for path in output_dir.rglob("*") if path.is_file() and path.name != LOCK]
    return all(path.name == METRICS and not path.stat().st_size for path in files)
