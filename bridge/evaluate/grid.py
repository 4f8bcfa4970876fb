"""Outcomes of runs on tasks: a grid of runs by tasks, each cell some episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

Key = tuple[str, int, int, int]
"""An episode: suite, task, initial state and seed."""

Outcomes = Mapping[Key, bool]
"""Success of one policy's episodes."""

Task = tuple[str, int]
"""Suite and task id."""


@dataclass(frozen=True)
class Grid:
    """Successes of R runs on T tasks; every run has played the same episodes of a task.

    A run is a policy: one seed of a training, say. Tasks of a suite stand side by side.
    """

    tasks: tuple[Task, ...]
    successes: np.ndarray
    """[R, T], counts."""
    episodes: np.ndarray
    """[T], how many each run has played."""

    @classmethod
    def of(cls, runs: Sequence[Outcomes], keys: Sequence[Key]) -> Self:
        """Count the successes of runs in episodes that all of them have played, with at least one a task."""
        cells: dict[Task, list[Key]] = {}
        for key in keys:
            cells.setdefault(key[:2], []).append(key)
        suites = list(dict.fromkeys(suite for suite, _ in cells))
        tasks = tuple(sorted(cells, key=lambda task: (suites.index(task[0]), task[1])))
        successes = [[sum(run[key] for key in cells[task]) for task in tasks] for run in runs]
        return cls(tasks, np.asarray(successes), np.asarray([len(cells[task]) for task in tasks]))

    @property
    def rates(self) -> np.ndarray:
        """Success rates, [R, T]."""
        return self.successes / self.episodes

    @property
    def guarded(self) -> np.ndarray:
        """Rates with one success and one failure more in each cell, [R, T].

        A few episodes that all end alike do not show that others could not end otherwise; a variance that
        was computed from their rate would say so.
        """
        return (self.successes + 1) / (self.episodes + 2)

    @property
    def suites(self) -> dict[str, np.ndarray]:
        """Columns of each suite's tasks."""
        names = dict.fromkeys(suite for suite, _ in self.tasks)
        return {name: np.flatnonzero([suite == name for suite, _ in self.tasks]) for name in names}

    def of_tasks(self, columns: np.ndarray) -> Self:
        """Return the grid of these columns alone."""
        tasks = tuple(self.tasks[column] for column in columns)
        return type(self)(tasks, self.successes[:, columns], self.episodes[columns])

    def of_run(self, run: int) -> Self:
        """Return the grid of this run alone."""
        return type(self)(self.tasks, self.successes[run : run + 1], self.episodes)


def shared(runs: Sequence[Outcomes]) -> list[Key]:
    """Return the episodes that all runs have played, in the order of the first."""
    return [key for key in runs[0] if all(key in run for run in runs[1:])]
