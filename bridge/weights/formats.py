"""What a checkpoint folder can be, and where one may be read and written. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pirl_jax.run_folder.layout import PRETRAINED_MODEL

FORMATS = ("orbax", "lerobot")

Consumer = Literal["train", "eval"]
CONSUMERS: tuple[Consumer, ...] = ("train", "eval")
"""Whom of LeRobot's the processors of an export are for, see ``consumers``."""

CONFIG = "config.json"


class WeightsError(ValueError):
    """A checkpoint that cannot be converted; the message names the file or tensor and the remedy."""


def local_folder(source: Path | str) -> Path | None:
    """Return the folder of a checkpoint; None if ``source`` can only be an id on the Hugging Face hub.

    Raises:
        WeightsError: It can be neither.
    """
    folder = Path(source)
    if (folder / PRETRAINED_MODEL).is_dir():
        folder = folder / PRETRAINED_MODEL
    if folder.is_dir():
        return folder
    if folder.exists():
        raise WeightsError(f"{source} is a file; give the checkpoint's folder.")
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise WeightsError(
            f"there is no folder {source}; give a checkpoint's folder or a hub id such as org/name."
        )
    return None


def check_destination(out: Path, overwrite: bool) -> None:
    """Refuse to write over something.

    Raises:
        WeightsError: ``out`` exists and may not be replaced, or is not a checkpoint.
    """
    if not out.exists():
        return
    if not overwrite:
        raise WeightsError(
            f"{out} already exists. Pass --overwrite to replace it, or choose another destination."
        )
    if not out.is_dir() or (any(out.iterdir()) and not (out / CONFIG).exists()):
        raise WeightsError(
            f"{out} is not a checkpoint, so --overwrite does not replace it. Choose another destination."
        )
