"""How often an expert succeeds in each task: measured without drawing, kept task by task, told as a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from bridge.libero.demonstrate import Attempt, demonstrated
from bridge.libero.experts.choice import Choice
from bridge.libero.suites import TaskId
from pirl_jax.files import read_json, write_json, write_text

RESULTS, TABLE = "experts.json", "experts.md"


class Measured:
    """Results in a folder, to which tasks are added.

    Args:
        folder: Holds results of the same settings, or none.
        settings: All that an episode depends on besides its task.

    Raises:
        ValueError: The folder's results are of other settings, or cannot be read.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, dict(settings)
        self._tasks: dict[str, dict[str, Any]] = {}
        if (path := folder / RESULTS).exists():
            found = read_json(path)
            if found.get("settings") != self._settings:
                raise ValueError(
                    f"{path} was measured with {found.get('settings')}, not with {self._settings}. "
                    "Give another --output_dir."
                )
            self._tasks = found["tasks"]

    def __contains__(self, task: TaskId) -> bool:
        return task.label in self._tasks

    def add(self, task: TaskId, instruction: str, episodes: list[dict[str, Any]]) -> None:
        """Keep a task's episodes, and write all anew."""
        self._tasks[task.label] = {"instruction": instruction, "episodes": episodes}
        write_json(self._folder / RESULTS, {"settings": self._settings, "tasks": self._tasks})
        write_text(self._folder / TABLE, self.table())

    def table(self) -> str:
        """Return Markdown: a row a task, in the order of their names."""
        count = self._settings["episodes"]
        rows = [
            f"| task | | successes of {count} | median steps of a success | CPU s an episode |",
            "|---" * 5 + "|",
        ]
        won = 0
        for label in sorted(self._tasks, key=_in_suite):
            episodes = self._tasks[label]["episodes"]
            steps = [episode["steps"] for episode in episodes if episode["success"]]
            won += len(steps)
            median = f"{statistics.median(steps):g}" if steps else ""
            seconds = statistics.mean(episode["cpu_seconds"] for episode in episodes)
            rows.append(
                f"| {label} | {self._tasks[label]['instruction']} | {len(steps)} | {median} | {seconds:.1f} |"
            )
        rows.append(f"| all | | {won} of {count * len(self._tasks)} | | |")
        return "\n".join(rows) + "\n"


def measure(
    workers: Pool, task: TaskId, expert: Choice, states: range, episodes: int, seed: int, ahead: int
) -> Iterator[dict[str, Any]]:
    """Yield each episode of a task as it is played: its initial state, seed, success, steps, CPU seconds."""
    attempts = [Attempt(task, states[index % len(states)], seed + index, expert) for index in range(episodes)]
    for attempt, played in zip(attempts, demonstrated(workers, attempts, ahead), strict=True):
        yield {
            "init_state": attempt.init_state,
            "seed": attempt.seed,
            "success": played.success,
            "steps": len(played.actions),
            "cpu_seconds": round(played.cpu_seconds, 2),
        }


def _in_suite(label: str) -> tuple[str, int]:
    suite, _, number = label.rpartition("_")
    return suite, int(number)
