"""The columns of a run's metrics, and few enough points of them to draw."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

POINTS = 400
"""Of a series that is drawn: between so many and twice as many, however long the run is."""
_MOST_COLUMNS = 2000
_LONGEST_NAME = 200


class History:
    """Rows of updates, by column; a value that a row lacks is NaN."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {"step": array("d")}

    def __len__(self) -> int:
        return len(self._columns["step"])

    @property
    def names(self) -> list[str]:
        """The columns, in the order in which they came."""
        return list(self._columns)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows."""
        for row in rows:
            done = len(self)
            for name, value in row.items():
                column = self._columns.get(name)
                if column is None:
                    if len(self._columns) >= _MOST_COLUMNS or len(name) > _LONGEST_NAME:
                        continue
                    column = self._columns[name] = array("d", [math.nan]) * done
                column.append(number(value))
            for column in self._columns.values():
                if len(column) == done:
                    column.append(math.nan)

    def column(self, name: str, first: int = 0) -> np.ndarray:
        """Return a column from a row on, a copy; all NaN where there is none of this name."""
        values = self._columns.get(name)
        return np.full(len(self) - first, np.nan) if values is None else np.array(values[first:])

    def last(self, name: str, count: int = 1) -> list[float]:
        """Return the numbers in the last rows of a column, those that are none left out."""
        values = self._columns.get(name)
        return [] if values is None else [value for value in values[-count:] if not math.isnan(value)]

    @property
    def width(self) -> int:
        """Rows that are drawn as one point: a power of two, so that points stay as they are for long."""
        return 1 << max(0, (len(self) - 1) // (2 * POINTS)).bit_length()


def number(value: Any) -> float:
    """Return a value of a row as a number; NaN if it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        found = float(value)
    except OverflowError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def points(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, smallest and largest of each ``width`` rows, the last of them not full perhaps.

    Args:
        values: One a row; NaN where there is none.
        width: Rows of a point.
    """
    filled = np.full(-(-len(values) // width) * width, np.nan)
    filled[: len(values)] = values
    rows = filled.reshape(-1, width)
    there = ~np.isnan(rows)
    count = there.sum(axis=1)
    none = count == 0
    mean = np.where(none, np.nan, np.where(there, rows, 0.0).sum(axis=1) / np.maximum(count, 1))
    low = np.where(none, np.nan, np.where(there, rows, np.inf).min(axis=1))
    high = np.where(none, np.nan, np.where(there, rows, -np.inf).max(axis=1))
    return mean, low, high


def listed(values: np.ndarray) -> list[float | None]:
    """Return numbers as JSON has them, five digits each; None for NaN."""
    return [None if math.isnan(value) else float(f"{value:.5g}") for value in values.tolist()]
