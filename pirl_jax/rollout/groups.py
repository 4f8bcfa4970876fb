"""Episodes from one initial state, gathered until their group is complete (GRPO)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol


class Grouped(Protocol):
    """What a group is made of."""

    @property
    def origin(self) -> tuple[str, int]:
        """Task and seed, the same for all episodes of a group."""
        ...

    @property
    def total_return(self) -> float:
        """Sum of the episode's rewards."""
        ...

    @property
    def update(self) -> int:
        """Updates done when the policy that acted was pushed."""
        ...


class Groups[T: Grouped]:
    """Open groups, and the verdict on those that fill up.

    Args:
        size: Episodes of a complete group.
        return_range: Least and greatest mean return of a group that teaches something.
    """

    def __init__(self, size: int, return_range: tuple[float, float]) -> None:
        self._size = size
        self._low, self._high = return_range
        self._open: OrderedDict[tuple[str, int], list[T]] = OrderedDict()

    def add(self, episode: T) -> tuple[list[T], int]:
        """Put an episode to its group.

        Returns:
            The complete group if it is one that teaches something, else nothing; and how many episodes were
            dropped because theirs does not.
        """
        members = self._open.setdefault(episode.origin, [])
        members.append(episode)
        if len(members) < self._size:
            return [], 0
        del self._open[episode.origin]
        mean = sum(member.total_return for member in members) / self._size
        return (members, 0) if self._low <= mean <= self._high else ([], self._size)

    def drop_before(self, update: int) -> int:
        """Forget open groups with an episode of a policy from before ``update``; return their episodes."""
        stale = [key for key, members in self._open.items() if min(m.update for m in members) < update]
        return sum(len(self._open.pop(key)) for key in stale)
