"""Which groups of episodes from one initial state teach something (GRPO)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev


@dataclass(frozen=True)
class Groups:
    """Groups of consecutive episode numbers, and the verdict on each.

    Attributes:
        size: Episodes of a group.
        min_std: Least standard deviation of the returns of a group that teaches something.
        return_range: Least and greatest mean return of one; None for any.
    """

    size: int
    min_std: float
    return_range: tuple[float, float] | None = None

    def teaches(self, returns: Sequence[float]) -> bool:
        """Tell whether a group of these returns is worth learning from."""
        low, high = self.return_range or (-math.inf, math.inf)
        return pstdev(returns) >= self.min_std and low <= fmean(returns) <= high
