"""How far an evaluation is, for a person at a terminal or reading a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from bridge.evaluate.results import TaskEpisode
from bridge.evaluate.settings import Group, Settings

_SECONDS_BETWEEN_LINES = 60.0  # where a line cannot be rewritten


class Progress:
    """Prints a line a finished group, and one with the time left, which a terminal shows in place.

    Args:
        groups: All there are.
        waiting: Those that have to be evaluated.
        settings: Of all.
    """

    def __init__(self, groups: Sequence[Group], waiting: Sequence[Group], settings: Settings):
        self._rollouts = {group: len(group.task_ids) * settings.rollouts for group in waiting}
        self._total = sum(self._rollouts.values())
        self._done, self._won = 0, 0
        self._size, self._of_task = settings.batch_size, settings.n_episodes
        self._episodes = self._of_task * sum(len(group.task_ids) for group in waiting)
        self._tasks = sum(len(group.task_ids) for group in groups)
        self._finished = self._tasks - sum(len(group.task_ids) for group in waiting)
        self._started = self._shown = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._width = 0
        if self._finished:
            self._print(f"{self._finished} of {self._tasks} tasks were finished before")

    def finished(self, group: Group, episodes: Sequence[TaskEpisode], seconds: float) -> None:
        """Tell that a group has been evaluated."""
        self._done += self._rollouts[group]
        self._finished += len(group.task_ids)
        won = sum(episode.success for episode in episodes)
        self._won += won
        self._print(f"{group}: {won} of {len(episodes)} episodes successful ({seconds:.0f} s)")

    def failed(self, group: Group, why: str) -> None:
        """Tell that a group has failed; the first line of why is shown."""
        self._total -= self._rollouts[group]
        self._episodes -= self._of_task * len(group.task_ids)
        self._print(f"FAILED: {why.splitlines()[0].rstrip(':')}")

    def show(self, running: Mapping[Group, tuple[int, float]]) -> None:
        """Tell how far the groups at work are.

        Args:
            running: Group → batches of episodes that it has finished, and how many of them were successful.
        """
        now = time.monotonic()
        if not self._terminal and now - self._shown < _SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        done = self._done + sum(batches for batches, _ in running.values())
        won = self._won + round(self._size * sum(won for _, won in running.values()))
        elapsed = now - self._started
        left = _duration(elapsed / done * (self._total - done)) if done else "unknown"
        at_work = sum(len(group.task_ids) for group in running)
        line = (
            f"{self._finished} of {self._tasks} tasks finished, {at_work} at work, "
            f"{min(self._episodes, self._size * done)} of {self._episodes} episodes, {won} successful, "
            f"{_duration(elapsed)} so far, time left {left}"
        )
        if self._terminal:
            print(f"\r{line:<{self._width}}", end="", flush=True)
            self._width = len(line)
        else:
            self._print(line)

    def close(self) -> None:
        """Leave the terminal's line empty."""
        if self._width:
            print(f"\r{'':<{self._width}}\r", end="", flush=True)
            self._width = 0

    def _print(self, line: str) -> None:
        self.close()
        print(line, flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
