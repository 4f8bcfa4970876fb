"""How often a run's episodes succeed, with intervals, and task by task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bridge.watch.history import History, listed, number
from pirl_jax.training.interval import wilson
from pirl_jax.training.metrics import N_EPISODES, PC_SUCCESS

POOLED = 5
"""Points whose episodes are put together: those of one update alone jump about."""
_RECENT = 10
"""Updates that a task's rate is of."""
_RATE, _EPISODES = "train/success_rate", "train/episodes"


def episodes_played(history: History) -> np.ndarray:
    """Return for each update how many episodes the run has learned from by its end."""
    return np.nancumsum(history.column(_EPISODES))


def exploring(history: History, width: int, first: int = 0) -> dict[str, list[float | None]]:
    """Return the exploring policy's success rate, pooled over a few points, with Wilson's 95 % interval.

    Args:
        history: Of the run.
        width: Updates of a point.
        first: Point to begin with.
    """
    before = max(0, first - POOLED + 1)
    rates, counts = (history.column(name, before * width) for name in (_RATE, _EPISODES))
    counts = np.where(np.isnan(rates) | np.isnan(counts), 0.0, counts)
    succeeded = np.nan_to_num(rates) * counts
    pooled = (_pooled(_sums(values, width))[first - before :] for values in (counts, succeeded))
    found = [_interval(s, n) for n, s in zip(*pooled)]
    rate, low, high = (np.array([row[i] for row in found]) for i in range(3))
    return {"rate": listed(rate), "low": listed(low), "high": listed(high)}


def _sums(values: np.ndarray, width: int) -> np.ndarray:
    filled = np.zeros(-(-len(values) // width) * width)
    filled[: len(values)] = values
    return filled.reshape(-1, width).sum(axis=1)


def _pooled(values: np.ndarray) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    return total[ends] - total[np.maximum(0, ends - POOLED)]


def _interval(succeeded: float, played: float) -> tuple[float, float, float]:
    n = round(played)
    if n < 1:
        return math.nan, math.nan, math.nan
    s = min(n, max(0, round(succeeded)))
    return (s / n, *wilson(s, n))


def evaluations(rows: Sequence[Mapping[str, Any]], history: History) -> list[dict[str, float | None]]:
    """Return the noise-free policy's success by the run's own evaluations, in shares.

    Args:
        rows: Of evaluations.
        history: Of the run: it says after how many episodes each was.
    """
    steps, played = history.column("step"), episodes_played(history)
    found = []
    for row in rows:
        rate, low, high = (
            number(row.get(name)) / 100 for name in (PC_SUCCESS, "eval/interval_low", "eval/interval_high")
        )
        if math.isnan(rate):
            continue
        before = int(np.searchsorted(steps, row["step"], side="right"))
        x = np.array([row["step"], played[before - 1] if before else 0.0, rate, low, high])
        step, episodes, *interval = listed(x)
        keys = ("step", "episodes", "rate", "low", "high", "n")
        found.append(dict(zip(keys, (step, episodes, *interval, number(row.get(N_EPISODES))))))
    return found


def tasks(history: History, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each task's newest rates: exploring, over its last updates, and of the newest evaluation.

    Args:
        history: Of the run.
        rows: Of evaluations.
    """
    newest = rows[-1] if rows else {}
    prefixes = ("train/recent_success_rate/", f"{_RATE}/", f"{PC_SUCCESS}/")
    seen = (*history.names, *newest)
    names = {name.removeprefix(each) for name in seen for each in prefixes if name.startswith(each)}
    found = []
    for name in sorted(names, key=_natural):
        recent = history.last(f"train/recent_success_rate/{name}")
        rates = recent or history.last(f"{_RATE}/{name}", _RECENT)
        evaluated = number(newest.get(f"{PC_SUCCESS}/{name}")) / 100
        found.append(
            {
                "name": name,
                "exploring": round(sum(rates) / len(rates), 4) if rates else None,
                "evaluated": None if math.isnan(evaluated) else round(evaluated, 4),
            }
        )
    return found


def _natural(name: str) -> tuple[str, int]:
    """Sort ``libero_object_10`` after ``libero_object_9``."""
    text = name.rstrip("0123456789")
    digits = name[len(text) :]
    return text, int(digits) if digits else -1
