"""How fast a run goes, by its ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from pirl_jax.run_folder.layout import METRICS
from pirl_jax.training.metrics import PC_SUCCESS, evaluated, read, updates

_LOOKED_AT = 10
"""Updates: older ones say little of what is to come."""
_STEADY_AFTER = 3
"""Times from update to update: of fewer, one that compiles or warms up would speak for all."""


@dataclass(frozen=True)
class Pace:
    """What the last updates were like; None where there are too few."""

    update: int = 0
    """The last."""
    success: float | None = None
    """Rate of its episodes."""
    update_s: float | None = None
    """Seconds from update to update, in the middle of the last ones."""
    episodes_per_minute: float | None = None
    steady: bool = False
    """Whether enough updates are done to say how long others will take."""
    evaluated: Mapping[str, Any] | None = None
    """Row of the newest evaluation."""


def pace_of(rows: Sequence[Mapping[str, Any]]) -> Pace:
    """Return the pace of a run of which these are the rows of metrics.

    Restarts lie between some rows; by the median they do not count.
    """
    found = [row for row in evaluated(rows) if row.get(PC_SUCCESS) is not None]
    newest = found[-1] if found else None
    rows = updates(rows)[-_LOOKED_AT:]
    if not rows:
        return Pace(evaluated=newest)
    last = rows[-1]
    between = [later["time"] - earlier["time"] for earlier, later in pairwise(rows)]
    update_s = median(between) if between else None
    episodes = fmean(row["train/episodes"] for row in rows)
    rate = 60 * episodes / update_s if update_s else None
    steady = len(between) >= _STEADY_AFTER
    return Pace(last["step"], last["train/success_rate"], update_s, rate, steady, newest)


class Metrics:
    """A run's metrics, read when they have changed.

    Args:
        output_dir: Of the run; need not exist.
    """

    def __init__(self, output_dir: Path) -> None:
        self._path, self._size = output_dir / METRICS, -1
        self._pace = Pace()

    def pace(self) -> Pace:
        """Return how fast the run goes."""
        size = self._path.stat().st_size if self._path.exists() else 0
        if size != self._size:
            self._size, self._pace = size, pace_of(read(self._path))
        return self._pace
