"""What one metric means."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A metric, for whoever sees it on a page or in ``metrics.jsonl``."""

    name: str
    """As in ``metrics.jsonl``; ``<…>`` at its end stands for any text, as a task's name."""
    meaning: str
    healthy: str
    """What it looks like in a run that learns."""
    remedy: str
    """What to do where it looks otherwise."""
    low: float = -math.inf
    high: float = math.inf
    """The healthy range of its mean over the last updates, where there is one in numbers: bounds included."""
    unit: str = ""

    @property
    def prefix(self) -> str | None:
        """The text that all names of the entry begin with; None where there is one name."""
        return self.name.partition("<")[0] if "<" in self.name else None

    @property
    def has_range(self) -> bool:
        """Whether some values of it are unhealthy by their number alone."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    def explains(self, metric: str) -> bool:
        """Tell whether a metric of this name is this one."""
        if self.prefix is None:
            return metric == self.name
        return metric.startswith(self.prefix) and len(metric) > len(self.prefix)
