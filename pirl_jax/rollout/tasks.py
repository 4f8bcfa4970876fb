"""Which of several tasks teach something: those that are sometimes solved and sometimes not."""

from __future__ import annotations

from collections import defaultdict, deque


class RecentSuccess:
    """Each task's success over its last episodes.

    It is not part of a checkpoint: after a resume all tasks teach until their windows are full again.

    Args:
        window: Episodes of a task that count.
        success_range: Least and greatest success rate of a task that teaches something.
    """

    def __init__(self, window: int, success_range: tuple[float, float]) -> None:
        self._low, self._high = success_range
        self._outcomes: defaultdict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=window))

    def add(self, task: str, success: bool) -> bool:
        """Record an episode; return whether to learn from it.

        That is a matter of the episodes before it: a verdict that depended on its own outcome would prefer
        successes at one end of the range and failures at the other. A task without a full window teaches, and
        so do episodes without a task's name.
        """
        outcomes = self._outcomes[task]
        full, rate = len(outcomes) == outcomes.maxlen, sum(outcomes) / max(len(outcomes), 1)
        outcomes.append(success)
        return not task or not full or self._low <= rate <= self._high

    @property
    def rates(self) -> dict[str, float]:
        """Success rate of each task that was played, by name."""
        return {
            task: sum(outcomes) / len(outcomes) for task, outcomes in sorted(self._outcomes.items()) if task
        }
