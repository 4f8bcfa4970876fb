"""How a run stands, in words and a few numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from bridge.watch.history import History, number
from bridge.wire.reminder import doing
from bridge.wire.status_file import Standing
from pirl_jax.console.duration import duration
from pirl_jax.training.metrics import PC_SUCCESS

State = Literal["starting", "running", "finished", "stopped", "unknown"]

_SILENT_S = 20.0
"""A learner that lives says how it stands every two seconds; a compilation may hold it up for a while."""
_RECENT = 10
_TURN = {
    "train/wait_s": "waiting for episodes",
    "scoring": "scoring",
    "train/release_s": "waiting for push or checkpoint",
    "train/update_s": "updating",
}
"""Metric → what happens meanwhile; together they are the turn."""


def state(standing: Standing | None, done: int, updates: int, last_row: float | None, now: float) -> State:
    """Return what a run is about, as far as its files tell.

    Args:
        standing: The learner's last word; None: there is none.
        done: Updates.
        updates: Of the whole run; 0: not known.
        last_row: Unix seconds of the newest row of metrics; None: there is none.
        now: Unix seconds.
    """
    if updates and done >= updates:
        return "finished"
    if standing is None:
        return "starting" if last_row is None else "unknown"
    return "running" if now - standing.time < _SILENT_S else "stopped"


def in_words(state: State, standing: Standing | None, done: int, now: float) -> str:
    """Say in a line what a run is about."""
    if state == "finished":
        return "All updates are done."
    if state == "starting":
        return (
            "No update yet, and no word of a learner: it loads and compiles before it listens, "
            "or it was not started. Its log says more."
        )
    if state == "unknown" or standing is None:
        return "Whether it still runs is not known: this run has no status.json."
    words = doing(standing.status)
    if state == "stopped":
        return (
            f"No learner has been heard of for {duration(now - standing.time)}. When it was, "
            f"update {standing.status.update + 1} {words}."
        )
    if done:
        return f"Update {standing.status.update + 1} {words}."
    return f"No update yet: {words.removeprefix('waits: ')}."


def actors(standing: Standing | None, now: float) -> list[dict[str, Any]]:
    """Return a row an actor: how far it is behind, how fast it plays, when it was heard of.

    Episodes a minute are since the learner began to listen, and none in the first.
    """
    if standing is None:
        return []
    status, minutes = standing.status, (standing.time - standing.began) / 60
    silent = max(0.0, now - standing.time) if now - standing.time >= _SILENT_S else 0.0
    rows = []
    for actor in sorted(status.actors, key=lambda actor: (len(actor.name), actor.name)):
        lag = None if status.version is None or actor.version is None else status.version - actor.version
        rows.append(
            {
                "name": actor.name,
                "behind": lag,
                "episodes": actor.episodes,
                "per_minute": round(actor.episodes / minutes, 2) if minutes >= 1 else None,
                "seen_s": round(actor.silent_ms / 1000 + silent, 1),
            }
        )
    return rows


def time_split(history: History) -> list[dict[str, Any]]:
    """Return how many seconds of a turn go where, in the mean of the last updates."""

    def mean(name: str) -> float:
        values = history.last(name, _RECENT)
        return sum(values) / len(values) if values else 0.0

    parts = {name: mean(name) for name in _TURN}
    parts["scoring"] = max(0.0, mean("train/collect_s") - parts["train/wait_s"])
    if not sum(parts.values()):
        return []
    return [{"name": _TURN[name], "metric": name, "seconds": round(s, 3)} for name, s in parts.items()]


def headline(
    history: History, evaluations: Sequence[Mapping[str, Any]], updates: int, running: bool
) -> dict[str, float | None]:
    """Return the few numbers that a run is asked for first; None for those that are not there yet.

    Args:
        history: Of the run.
        evaluations: Its rows.
        updates: Of the whole run; 0: not known.
        running: Whether more is to come.
    """
    times = history.last("time", _RECENT + 1)
    between = sorted(later - earlier for earlier, later in pairwise(times))
    update_s = between[len(between) // 2] if between else math.nan
    episodes = history.last("train/episodes", _RECENT)
    done = int((history.last("step") or [0])[-1])
    measured = [row for row in evaluations if not math.isnan(number(row.get(PC_SUCCESS)))]
    newest = measured[-1] if measured else {}
    left = (updates - done) * update_s if running and updates and len(between) >= 3 else math.nan
    found = {
        "update": float(done),
        "updates": float(updates) or math.nan,
        "episodes": float(sum_of(history, "train/episodes")),
        "per_minute": 60 * sum(episodes) / len(episodes) / update_s
        if episodes and update_s > 0
        else math.nan,
        "update_s": update_s,
        "left_s": left,
        "evaluated": number(newest.get(PC_SUCCESS)) / 100,
        "evaluated_low": number(newest.get("eval/interval_low")) / 100,
        "evaluated_high": number(newest.get("eval/interval_high")) / 100,
        "evaluated_at": number(newest.get("step")),
    }
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def sum_of(history: History, name: str) -> float:
    """Return the sum of a column, without what is no number."""
    values = history.column(name)
    return float(values[~(values != values)].sum())
