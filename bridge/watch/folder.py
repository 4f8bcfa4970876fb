"""What lies in a run's folder beside its metrics: configuration, checkpoints, reports, videos."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bridge.watch.history import number
from pirl_jax.run_folder.layout import (
    BEST,
    CHECKPOINTS,
    EVALUATED,
    LAST,
    PRETRAINED_MODEL,
    SCORE,
    TRAIN_CONFIG,
    last_policy,
    read_about,
    steps,
)

VIDEOS = (".mp4", ".webm")
_REPORTS = (".md", ".png")
_RESULTS = ("summary.json", "report.json", "comparison.json", "aggregate.json")
_MOST = 60
"""Files of a kind that are listed, the newest."""
_LOOKED_AT = 20_000
"""Names that a listing looks at."""
_DEPTH = 5
_LARGEST_JSON = 1 << 22
_FAILED = ("fail", "unsuccess")
"""In the path of a video, as ``failure/000012.mp4``: its episode did not succeed."""


@dataclass(frozen=True)
class Found:
    """A file that the page links to."""

    path: str
    """From the run's folder, with ``/``."""
    time: float
    """Unix seconds of its last change."""
    size: int
    failed: bool
    """Of a video: its name says that the episode failed."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of itself."""

    step: int
    path: str
    """From the run's folder."""
    score: float | None
    """Share of the training episodes before it that succeeded."""
    evaluated: float | None
    """Share of the episodes by which exactly its parameters were evaluated."""
    names: tuple[str, ...]
    """Links that lead to it: ``last``, ``best``."""
    complete: bool
    """Whether it holds all of the policy's weights."""


@dataclass(frozen=True)
class Listing:
    """What a folder held at one look."""

    videos: tuple[Found, ...] = ()
    """Those of failed episodes first, then the newest first."""
    reports: tuple[Found, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it for the page."""
        return asdict(self)

    @property
    def paths(self) -> frozenset[str]:
        """Every file that a browser may have."""
        return frozenset(file.path for file in (*self.videos, *self.reports))


def listing(folder: Path) -> Listing:
    """Look into a run's folder; what cannot be read is left out."""
    videos, reports = [], []
    for path in _files(folder):
        kind = videos if path.suffix in VIDEOS else reports
        try:
            about = path.stat()
        except OSError:
            continue
        name = path.relative_to(folder).as_posix()
        failed = any(word in name.lower() for word in _FAILED) and not path.stem.endswith("_success")
        kind.append(Found(name, round(about.st_mtime, 1), about.st_size, failed))
    videos.sort(key=lambda file: (not file.failed, -file.time, file.path))
    reports.sort(key=lambda file: (-file.time, file.path))
    return Listing(tuple(videos[:_MOST]), tuple(reports[:_MOST]), tuple(_checkpoints(folder)))


def _files(folder: Path) -> Iterator[Path]:
    """Yield videos and reports; links are not followed, and checkpoints have none of them."""
    looked_at = 0
    for root, folders, files in os.walk(folder):
        place = Path(root)
        depth = len(place.relative_to(folder).parts)
        folders[:] = [name for name in folders if depth < _DEPTH and name[0] != "." and name != CHECKPOINTS]
        for name in files:
            looked_at += 1
            path = place / name
            wanted = path.suffix in (*VIDEOS, *_REPORTS) or name in _RESULTS
            if wanted and not name.startswith(".") and not path.is_symlink():
                yield path
        if looked_at > _LOOKED_AT:
            return


def _checkpoints(folder: Path) -> Iterator[Checkpoint]:
    place = folder / CHECKPOINTS
    links = {name: _target(place / name) for name in (LAST, BEST)}
    for step, path in sorted(steps(place), reverse=True):
        try:
            about = read_about(path)
        except ValueError:
            continue
        yield Checkpoint(
            step,
            path.relative_to(folder).as_posix(),
            _share(about.get(SCORE), 1),
            _share(about.get(EVALUATED), 100),
            tuple(name for name, target in links.items() if target == path.name),
            (path / PRETRAINED_MODEL / "model.safetensors").exists(),
        )


def _target(link: Path) -> str | None:
    try:
        return Path(os.readlink(link)).name
    except OSError:
        return None


def _share(value: Any, of: float) -> float | None:
    found = number(value)
    return None if found != found else round(found / of, 4)


def read_config(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """Return the newest configuration of a run and the file that it is from; None where there is none."""
    for path in (folder / TRAIN_CONFIG, last_policy(folder) / TRAIN_CONFIG):
        try:
            if path.stat().st_size > _LARGEST_JSON:
                continue
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(config, dict):
            return path.relative_to(folder).as_posix(), config
    return None
