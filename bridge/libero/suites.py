"""LIBERO's suites and tasks by name. Imports nothing of LIBERO: the learner needs the names without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """What LIBERO and LeRobot say about a suite."""

    num_tasks: int
    max_steps: int
    """LeRobot's limit of an episode, in control steps."""


SUITES = {
    "libero_spatial": Suite(10, 280),
    "libero_object": Suite(10, 280),
    "libero_goal": Suite(10, 300),
    "libero_10": Suite(10, 520),
    "libero_90": Suite(90, 400),
}

INIT_STATES = 50
"""Initial states of every task."""

MAX_STEPS = 990
"""LIBERO's simulator refuses to go on after 1000 control steps, of which LeRobot spends ten on settling."""


@dataclass(frozen=True)
class TaskId:
    """One task of LIBERO."""

    suite: str
    number: int

    @property
    def label(self) -> str:
        """Name in metrics, ``<suite>_<number>``."""
        return f"{self.suite}_{self.number}"


def suite_names(task: str) -> list[str]:
    """Split LeRobot's ``env.task``, one suite or several with commas between.

    Raises:
        ValueError: There is none, or one that does not exist.
    """
    names = [name.strip() for name in task.split(",") if name.strip()]
    unknown = [name for name in names if name not in SUITES]
    if unknown or not names:
        raise ValueError(f"env.task names suites of LIBERO ({', '.join(SUITES)}); got {task!r}.")
    return names


def select_tasks(task: str, task_ids: Sequence[int] | None) -> list[TaskId]:
    """Return the tasks of ``env.task``'s suites: all, or of each those with the numbers ``env.task_ids``.

    Raises:
        ValueError: A suite or a number does not exist.
    """
    names = suite_names(task)
    if task_ids is not None:
        limit = min(SUITES[name].num_tasks for name in names)
        if not task_ids or not all(0 <= number < limit for number in task_ids):
            raise ValueError(f"env.task_ids must be numbers in [0, {limit}) for {task!r}; got {task_ids}.")
    return [
        TaskId(name, number)
        for name in names
        for number in (range(SUITES[name].num_tasks) if task_ids is None else sorted(set(task_ids)))
    ]
