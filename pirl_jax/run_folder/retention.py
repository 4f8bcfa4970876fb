"""Which of a run's checkpoints stay."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pirl_jax.recipe.ranges import RANGES
from pirl_jax.run_folder import manifest
from pirl_jax.run_folder.layout import (
    BEST,
    EVALUATED,
    LAST,
    MODEL,
    PRETRAINED_MODEL,
    REMOVED,
    SCORE,
    read_about,
    steps,
)


@dataclass(frozen=True)
class Retention:
    """Which of a run's checkpoints stay on disk, beside the last one and the best.

    Raises:
        ValueError: A number is negative.
    """

    keep_last: int = 2
    """The newest; 0: all."""
    keep_every: int = 0
    """Besides, those whose step is a multiple of this; 0: none."""
    export: Literal["last", "every"] = "last"
    """Which have the policy's complete weights as LeRobot loads them: the last and the best, or every one.
    The others hold what has changed, of which ``pirl-convert --step`` makes the same."""

    def __post_init__(self) -> None:
        for name, allowed in RANGES["checkpoint"].items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"checkpoint.{name} must be {allowed}; got {value}.")
        if self.export not in ("last", "every"):
            raise ValueError(f"checkpoint.export must be last or every; got {self.export!r}.")


def best_of(checkpoints: Path) -> Path | None:
    """Return the checkpoint with the highest score, of equal ones the latest; None where none has a score.

    A checkpoint that was evaluated comes before all that were not, whatever their actors did with noise.
    """
    scored = []
    for step, folder in steps(checkpoints):
        with contextlib.suppress(ValueError, KeyError):  # not readable, or without a score
            about = read_about(folder)
            evaluated = EVALUATED in about
            scored.append((evaluated, about[EVALUATED if evaluated else SCORE], step, folder))
    return max(scored)[-1] if scored else None


def prune(checkpoints: Path, step: int, retention: Retention) -> None:
    """Remove what a run does not keep once the checkpoint of ``step`` is complete.

    Checkpoints of later steps stay: they are of a run from which this one went back to an earlier state.
    """
    links = {checkpoints.joinpath(name).resolve() for name in (LAST, BEST)}
    earlier = sorted((n, folder) for n, folder in steps(checkpoints) if n <= step)
    newest = {n for n, _ in earlier[-retention.keep_last :]}  # all of them for 0
    for n, folder in earlier:
        if folder.resolve() in links:
            continue
        if n not in newest and not (retention.keep_every and n % retention.keep_every == 0):
            removed = folder.with_name(folder.name + REMOVED)
            os.replace(folder, removed)  # else, killed half-way, it would pass for a checkpoint
            shutil.rmtree(removed)
        elif retention.export == "last":
            manifest.remove(folder, f"{PRETRAINED_MODEL}/{MODEL}")
