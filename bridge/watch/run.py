"""A run as the page is told of it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bridge.watch import standing as words
from bridge.watch import success
from bridge.watch.folder import Listing, listing, read_config
from bridge.watch.history import History, listed, number, points
from bridge.watch.preset import closest, flat
from bridge.watch.tail import Tail
from bridge.wire.status_file import read_standing
from pirl_jax.diagnosis import progress
from pirl_jax.glossary import SECTIONS
from pirl_jax.run_folder.layout import METRICS, STATUS
from pirl_jax.training.metrics import N_EPISODES

_LOOK_EVERY_S = 5.0
"""Seconds between two looks at what lies in the folder."""
_MOST_EVALUATIONS = 800
_SECTIONS = ("algorithm", "env")
_PLAIN = ("steps", "seed", "save_freq", "env_eval_freq", "job_name")


class Run:
    """Reads a run's folder, each file again only where it has changed; several threads may ask.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._given = folder.resolve(), str(folder)
        self._lock = threading.Lock()
        self._tail = Tail(folder / METRICS)
        self._history, self._evaluations = History(), list[dict[str, Any]]()
        self._beginning = 0
        self._looked = float("-inf")
        self._listing, self._about, self._hash = Listing(), dict[str, Any](), ""

    def read(self) -> int:
        """Take what has been written since; return the bytes that are left for the next call."""
        with self._lock:
            return self._read()

    def news(self, key: str = "", known: int = 0, about: str = "") -> dict[str, Any]:
        """Return what the page does not have yet.

        Args:
            key: Of the points that it has; another key's are of no use any more.
            known: How many points it has.
            about: Hash of what it knows of the folder.
        """
        with self._lock:
            rest = self._read()
            self._look()
            news = self._points(key, known) | {"rest": rest, "now": self._now()}
            if about != self._hash:
                news["about"] = self._about | {"hash": self._hash}
            return news

    def path_of(self, name: str) -> Path | None:
        """Return a file that the page links to; None if it is none of them."""
        with self._lock:
            return self.folder / name if name in self._listing.paths else None

    def _read(self) -> int:
        rows = self._tail.read()
        if self._tail.beginning != self._beginning:
            self._beginning = self._tail.beginning
            self._history, self._evaluations = History(), []
        self._evaluations += [row for row in rows if N_EPISODES in row]
        self._history.add(row for row in rows if N_EPISODES not in row)
        return self._tail.rest

    def _look(self) -> None:
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        self._listing = listing(self.folder)
        self._about = {
            "name": self.folder.name,
            "given": self._given,
            "path": str(self.folder),
            "config": _config(self.folder),
            "listing": self._listing.as_json(),
            "glossary": {title: [_entry(each) for each in entries] for title, entries in SECTIONS.items()},
        }
        self._hash = hashlib.sha256(json.dumps(self._about).encode()).hexdigest()[:16]

    def _points(self, key: str, known: int) -> dict[str, Any]:
        history = self._history
        width = history.width
        now = f"{self._beginning}.{width}"
        count = -(-len(history) // width)
        first = max(0, min(known, count) - 1) if key == now else 0
        episodes = success.episodes_played(history)[first * width :]
        drawn = {"step": history.column("step", first * width), "episodes": episodes}
        series = {
            name: points(history.column(name, first * width), width)
            for name in history.names
            if name not in ("step", "time")
        }
        return {
            "key": now,
            "first": first,
            "width": width,
            "x": {name: listed(points(values, width)[2]) for name, values in drawn.items()},
            "mean": {name: listed(mean) for name, (mean, _, _) in series.items()},
            "low": {name: listed(low) for name, (_, low, _) in series.items()} if width > 1 else {},
            "high": {name: listed(high) for name, (_, _, high) in series.items()} if width > 1 else {},
            "exploring": success.exploring(history, width, first),
        }

    def _now(self) -> dict[str, Any]:
        history, now = self._history, time.time()
        standing = read_standing(self.folder / STATUS)
        steps, times = history.last("step"), history.last("time")
        done = int(steps[-1]) if steps else 0
        config = self._about.get("config") or {}
        updates = (
            standing.status.updates if standing and standing.status.updates else config.get("steps") or 0
        )
        state = words.state(standing, done, updates, times[-1] if times else None, now)
        stride = -(-max(1, len(self._evaluations)) // _MOST_EVALUATIONS)
        evaluations = self._evaluations[::-1][::stride][::-1]
        newest = self._evaluations[-1] if self._evaluations else {}
        said = progress.findings(history.names, history.last, len(history), config.get("target_kl"))
        return {
            "time": now,
            "state": state,
            "words": words.in_words(state, standing, done, now),
            "rows": len(history),
            "broken": self._tail.broken,
            "headline": words.headline(history, self._evaluations, updates, state == "running"),
            "findings": [asdict(finding) for finding in said],
            "actors": words.actors(standing, now),
            "time_split": words.time_split(history),
            "tasks": success.tasks(history, self._evaluations),
            "evaluations": success.evaluations(evaluations, history),
            "evaluation": {name: value for name in newest if (value := _finite(newest[name])) is not None},
            "last_row": times[-1] if times else None,
        }


def _finite(value: Any) -> float | None:
    found = number(value)
    return None if found != found else found


def _entry(entry: Any) -> dict[str, str]:
    return {name: getattr(entry, name) for name in ("name", "meaning", "healthy", "remedy", "unit")}


def _config(folder: Path) -> dict[str, Any] | None:
    """Return what the page says of a run's configuration."""
    found = read_config(folder)
    if found is None:
        return None
    path, config = found
    sections = {name: value for name in _SECTIONS if isinstance(value := config.get(name), Mapping)}
    plain = {name: config[name] for name in _PLAIN if config.get(name) is not None}
    algorithm = sections.get("algorithm", {})
    optimizer = algorithm.get("optimizer")
    target = _finite(optimizer.get("target_kl")) if isinstance(optimizer, Mapping) else None
    return {
        "path": path,
        "steps": int(_finite(config.get("steps")) or 0),
        "target_kl": target,
        "preset": asdict(closest(algorithm)) if algorithm else None,
        "settings": {name: json.dumps(value) for name, value in flat(plain | sections).items()},
    }
