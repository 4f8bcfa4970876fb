"""The films that ``lerobot-eval`` has made of an evaluation's episodes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bridge.videos.mosaic import MOST, Clip, write_mosaic

GRID = "episodes.mp4"
"""Many episodes in one film, beside a report."""
_MOST_OF_A_TASK, _MOST_ROWS = 10, 10
_FILM = re.compile(r"eval_episode_(\d{1,9})\.mp4")
_TASK = re.compile(r"(\w+)_(\d{1,6})")


@dataclass(frozen=True)
class Films:
    """Where films lie, as a page finds them."""

    found: dict[tuple[str, int, int], str]
    """Suite, task and number of the episode within it → path from the page's folder, with ``/``."""

    @classmethod
    def of(cls, report: Path, page: Path) -> Self:
        """Look for the films of an evaluation.

        Args:
            report: Its folder.
            page: Folder of the page that links to them.
        """
        found = {}
        for path in sorted(report.glob("tasks/*/videos/*/*.mp4")):
            episode, task = _FILM.fullmatch(path.name), _TASK.fullmatch(path.parent.name)
            if episode and task:
                link = Path(os.path.relpath(path.resolve(), page.resolve())).as_posix()
                found[task[1], int(task[2]), int(episode[1])] = link
        return cls(found)

    def path(self, suite: str, task_id: int, episode: int | None) -> str | None:
        """Return the film of an episode; None if there is none."""
        return None if episode is None else self.found.get((suite, task_id, episode))


def write_grid(report: Mapping[str, Any], folder: Path) -> None:
    """Write the first episodes of each task into one film, a task's side by side; none without films.

    Args:
        report: Content of ``report.json``.
        folder: Where it lies.

    Raises:
        ValueError: A film is damaged.
        OSError: It cannot be written.
    """
    (folder / GRID).unlink(missing_ok=True)
    films = Films.of(folder, folder)
    tasks: dict[tuple[str, int], list[Clip]] = {}
    for one in report["episodes"]:
        task = one["suite"], one["task_id"]
        if path := films.path(*task, one["episode"]):
            tasks.setdefault(task, []).append(Clip(folder / path, one["success"]))
    shown = list(tasks.values())[:MOST]
    if not shown:
        return
    each = min(max(1, MOST // len(shown)), _MOST_OF_A_TASK, min(map(len, shown)))
    columns = each * -(-len(shown) // _MOST_ROWS)
    write_mosaic(folder / GRID, [clip for clips in shown for clip in clips[:each]], columns)
