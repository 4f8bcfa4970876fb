"""How far the recording of a dataset is, for one that is stopped to go on."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.datasets.unfinished import recording
from bridge.libero.experts.choice import Choice
from bridge.libero.suites import TaskId
from pirl_jax.files import read_json, write_json


def asked_for(
    tasks: list[TaskId], episodes: int, expert: Choice, states: range, image_size: int, seed: int
) -> dict[str, Any]:
    """Return what a recording is of, as it is written down."""
    return {
        "tasks": [task.label for task in tasks],
        **{"episodes": episodes, "expert": repr(expert), "states": [states.start, states.stop]},
        **{"image_size": image_size, "seed": seed},
    }


@dataclass
class Tally:
    """How far a recording is; beside the dataset until that is whole."""

    path: Path
    asked: dict[str, Any]
    """What the recording is of."""
    saved: dict[str, int]
    """Label of a task → its episodes in the dataset."""
    attempts: dict[str, int]

    @classmethod
    def of(cls, root: Path, asked: dict[str, Any]) -> Tally:
        """Return how far the recording of a dataset is.

        Raises:
            ValueError: It is whole already, was killed, or is of something else.
        """
        path = recording(root)
        elsewhere = f"Remove {root}, or record elsewhere."
        if not root.exists():
            return cls(path, asked, {}, {})
        if not path.exists():
            raise ValueError(f"{root} already exists. {elsewhere}")
        there = read_json(path)
        if other := [name for name, value in asked.items() if there["asked"][name] != value]:
            raise ValueError(
                f"{root} was begun with another {other[0]}: {there['asked'][other[0]]}, not "
                f"{asked[other[0]]}. Give the same to go on. {elsewhere}"
            )
        if not there["closed"]:
            raise ValueError(f"{root} cannot be read: its recording was killed. {elsewhere}")
        tally = cls(path, asked, there["saved"], there["attempts"])
        if not tally.episodes:  # an empty dataset cannot be gone on with
            shutil.rmtree(root)
        return tally

    @property
    def episodes(self) -> int:
        """How many the dataset has."""
        return sum(self.saved.values())

    def note(self, task: str, success: bool) -> None:
        """Write down that an attempt at a task is over, and in the dataset if it was a success."""
        self.saved[task] = self.saved.get(task, 0) + success
        self.attempts[task] = self.attempts.get(task, 0) + 1
        self._write(closed=False)

    def pause(self) -> None:
        """Write down that the dataset is closed, and can be gone on with."""
        self._write(closed=True)

    def over(self) -> None:
        """The dataset has all that it was to have."""
        self.path.unlink()

    def _write(self, closed: bool) -> None:
        counts = {"saved": self.saved, "attempts": self.attempts}
        write_json(self.path, {"asked": self.asked, **counts, "closed": closed})
