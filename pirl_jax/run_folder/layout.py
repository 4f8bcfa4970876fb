"""Names in a run's folder, and the renames by which a checkpoint appears or goes as a whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pirl_jax.files import flush, write_json

METRICS = "metrics.jsonl"
STATUS = "status.json"
"""How the run stands, by its learner's last word (``bridge/wire/status_file.py``)."""
CURVE = "learning_curve.png"
TRACEBACK = "traceback.log"
CHECKPOINTS = "checkpoints"
LAST = "last"
BEST = "best"
PRETRAINED_MODEL = "pretrained_model"
MODEL = "model.safetensors"
TRAIN_CONFIG = "train_config.json"
TRAINING_STATE = "training_state"
ORBAX = "orbax"
TRAINING_STEP = "training_step.json"
SCORE = "score"
"""What a checkpoint says of itself: success rate of the training episodes before it."""
EVALUATED = "pc_success"
"""Likewise: success in percent of the episodes by which exactly its parameters were evaluated."""

BUILDING = ".tmp"
"""Ends the names of what is not complete yet."""
_DISPLACED = ".displaced"
"""Ends the name of a checkpoint while another of its step takes its place."""
REMOVED = ".removed"
"""Ends the name of a checkpoint that is being removed."""


def checkpoint_folder(output_dir: Path | str, step: int, total_steps: int) -> Path:
    """Return ``<output_dir>/checkpoints/000010``, zero-padded as LeRobot's ``get_step_identifier`` does."""
    digits = max(6, len(str(total_steps)))
    return Path(output_dir) / CHECKPOINTS / f"{step:0{digits}d}"


def last_policy(output_dir: Path) -> Path:
    """Return where the policy of a run's last checkpoint is, and the config that the run goes on with."""
    return output_dir / CHECKPOINTS / LAST / PRETRAINED_MODEL


def checkpoint_of(output_dir: Path | str, step: int) -> Path:
    """Return the folder of a run's checkpoint.

    Raises:
        ValueError: There is none of this step; says which there are.
    """
    found = dict(steps(Path(output_dir) / CHECKPOINTS))
    if step in found:
        return found[step]
    there = ", ".join(map(str, sorted(found))) or "none"
    raise ValueError(f"{output_dir} has no checkpoint of step {step}; there are: {there}.")


def final_path(path: Path | str) -> Path:
    """Return where a path inside a checkpoint that is being built will be once it is complete.

    For files that have to name their own place; any other path comes back absolute.
    """
    parts = list(Path(path).absolute().parts)
    for index in range(1, len(parts)):
        if parts[index - 1] == CHECKPOINTS:
            parts[index] = parts[index].removesuffix(BUILDING)
    return Path(*parts)


def read_step(checkpoint: Path | str) -> int:
    """Return the step a checkpoint folder (``…/000010`` or ``…/last``) was written at.

    Raises:
        ValueError: The folder is not a checkpoint.
    """
    return read_about(checkpoint)["step"]


def read_about(checkpoint: Path | str) -> dict[str, Any]:
    """Return what a checkpoint folder says of itself: ``step``, and what its writer added.

    Raises:
        ValueError: The folder is not a checkpoint.
    """
    file = Path(checkpoint) / TRAINING_STATE / TRAINING_STEP
    try:
        about = json.loads(file.read_text())
        return {**about, "step": int(about["step"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{checkpoint} is no checkpoint of a run: cannot read {file} ({error}).") from error


def write_about(checkpoint: Path, about: Mapping[str, Any]) -> None:
    """Write what a checkpoint says of itself, as a whole or not at all."""
    write_json(checkpoint / TRAINING_STATE / TRAINING_STEP, about)


def put_in_place(building: Path, folder: Path) -> None:
    """Rename, displacing a checkpoint of the same step (a run resumed from an earlier one meets it again)."""
    displaced = folder.with_name(folder.name + _DISPLACED)
    shutil.rmtree(displaced, ignore_errors=True)
    if folder.exists():
        os.replace(folder, displaced)
    os.replace(building, folder)
    flush(folder.parent)
    shutil.rmtree(displaced, ignore_errors=True)


def point(name: str, folder: Path) -> None:
    """Make the link ``name`` beside a checkpoint lead to it, by one atomic rename."""
    link = folder.with_name(name + BUILDING)
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    os.replace(link, folder.with_name(name))
    flush(folder.parent)


def sweep(checkpoints: Path) -> None:
    """Remove what a killed run has left half-done; nothing that a run has not made."""
    for path in checkpoints.glob(f"*{_DISPLACED}"):
        original = path.with_suffix("")
        if not original.name.isdigit():
            continue
        if original.exists():
            shutil.rmtree(path)
        else:  # killed between the two renames of `put_in_place`
            os.replace(path, original)
    for path in checkpoints.glob("*"):
        name, suffix = path.stem, path.suffix
        if suffix in (BUILDING, REMOVED) and name.isdigit() and not path.is_symlink():
            shutil.rmtree(path)
        elif suffix == BUILDING and name in (LAST, BEST) and path.is_symlink():
            path.unlink()


def mend_last(checkpoints: Path) -> None:
    """Make ``last`` of a run that was killed between its first checkpoint and the link to it."""
    newest = max(steps(checkpoints), default=None)
    if newest is not None and not (checkpoints / LAST).exists():
        point(LAST, newest[1])


def mend(path: Path) -> None:
    """Put the checkpoints that a path leads into in order if it leads to nothing, as after a kill.

    Args:
        path: as ``<output_dir>/checkpoints/last/pretrained_model/train_config.json``.
    """
    if path.exists():
        return
    for folder in path.absolute().parents:
        if folder.name == CHECKPOINTS and folder.is_dir():
            sweep(folder)
            mend_last(folder)
            return


def steps(checkpoints: Path) -> Iterator[tuple[int, Path]]:
    """Yield step and folder of each checkpoint, in no order."""
    for folder in checkpoints.glob("*"):
        if folder.name.isdigit() and folder.is_dir() and not folder.is_symlink():
            yield int(folder.name), folder
