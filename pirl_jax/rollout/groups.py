"""Episodes from one initial state, gathered until their group is complete (GRPO)."""

from __future__ import annotations

import math
from collections import OrderedDict
from statistics import fmean, pstdev
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
        min_std: Least standard deviation of the returns of a group that teaches something.
        return_range: Least and greatest mean return of one; None for any.
    """

    def __init__(self, size: int, min_std: float, return_range: tuple[float, float] | None = None) -> None:
        self._size = size
        self._min_std = min_std
        self._low, self._high = return_range or (-math.inf, math.inf)
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
        returns = [member.total_return for member in members]
        teaches = pstdev(returns) >= self._min_std and self._low <= fmean(returns) <= self._high
        return (members, 0) if teaches else ([], self._size)

    def drop_before(self, update: int) -> int:
        """Forget open groups with an episode of a policy from before ``update``; return their episodes."""
        stale = [key for key, members in self._open.items() if min(m.update for m in members) < update]
        return sum(len(self._open.pop(key)) for key in stale)
