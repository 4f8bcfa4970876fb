"""Episodes as ``lerobot-eval`` reports them in ``eval_info.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.evaluate.settings import Group, Settings
from pirl_jax.files import read_json

EVAL_INFO = "eval_info.json"


@dataclass(frozen=True)
class TaskEpisode:
    """One evaluated episode."""

    suite: str
    task_id: int
    episode: int
    """Its number within the task."""
    init_state: int
    """Which of the task's initial states it began in."""
    seed: int
    success: bool


def read_episodes(file: Path, group: Group, settings: Settings) -> list[TaskEpisode]:
    """Read an ``eval_info.json``, by task and episode.

    Raises:
        ValueError: It is damaged, or holds other tasks or another number of episodes than were asked for.
    """
    try:
        tasks = {
            (task["task_group"], task["task_id"]): task["metrics"]["successes"]
            for task in read_json(file)["per_task"]
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is no result of lerobot-eval: {error!r}.") from error
    if set(tasks) != {(group.suite, task_id) for task_id in group.task_ids}:
        raise ValueError(f"{file} holds {sorted(tasks)}, not {group}.")
    episodes = []
    for task_id in group.task_ids:
        successes = tasks[group.suite, task_id]
        if not _are_outcomes(successes) or len(successes) != settings.n_episodes:
            raise ValueError(f"{file} does not hold {settings.n_episodes} outcomes of task {task_id}.")
        episodes += [
            TaskEpisode(group.suite, task_id, i, settings.init_state(i), settings.seed + i, success)
            for i, success in enumerate(successes)
        ]
    return episodes


def _are_outcomes(values: Sequence[bool]) -> bool:
    return isinstance(values, list) and all(isinstance(value, bool) for value in values)
