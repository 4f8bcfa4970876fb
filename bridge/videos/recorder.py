"""Films of a few training episodes, made of what the learner has received anyway."""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from bridge.videos.film import SUFFIX, framed, write_film
from pirl_jax.files import PARTIAL
from pirl_jax.recipe import VideosConfig
from pirl_jax.rollout.episode import Episode
from pirl_jax.typing import UInt8

logger = logging.getLogger(__name__)

VIDEOS = "videos"
"""Folder of films in a run's."""
FPS = 4
"""Pictures a second. There is one a chunk: a film is no measure of how fast the robot moves."""
_STILL = FPS
"""Pictures at the end that show how the episode has ended."""
_SMALLEST = 224
"""Pixels of a picture's height at least: small cameras are shown larger."""
_WAITING = 8
"""Episodes that wait to be written; with more, an episode is not filmed."""
_LOWEST_PRIORITY = 19


class Recorder:
    """Films episodes as they pass, on a thread of the lowest priority.

    Whatever goes wrong is said once and costs the run its films, nothing else.

    Args:
        settings: Which episodes are filmed, and how many films stay.
        run: The run's folder.
    """

    def __init__(self, settings: VideosConfig, run: Path) -> None:
        self._settings, self._folder = settings, run / VIDEOS
        self._episodes: queue.Queue[Episode | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="videos", daemon=True)
        self._over = not self._settings.every_episodes
        self._left_out = 0

    def __enter__(self) -> Self:
        if not self._over:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the film that is being written; what waits is left out."""
        if self._thread.is_alive():
            self._over = True
            self._episodes.put(None)
            self._thread.join()

    def passing(self, receive: Callable[[float], Episode | None]) -> Callable[[float], Episode | None]:
        """Return ``receive``, of whose episodes some are filmed."""

        def received(timeout: float) -> Episode | None:
            episode = receive(timeout)
            if episode is not None:
                self._offer(episode)
            return episode

        return received

    def _offer(self, episode: Episode) -> None:
        if self._over or episode.number % self._settings.every_episodes >= self._settings.episodes:
            return
        if not episode.observations.images.size:
            self._end("the episodes have no pictures")
        elif self._episodes.qsize() < _WAITING:
            self._episodes.put(episode)
        else:
            self._left_out += 1
            if self._left_out == 1:
                logger.info("some episodes are not filmed: they come faster than films are made")

    def _work(self) -> None:
        with suppress(AttributeError, OSError):  # a thread has a priority of its own on Linux alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        try:
            _sweep(self._folder)
            while (episode := self._episodes.get()) is not None and not self._over:
                self._write(episode)
        except Exception as error:  # a film is not worth a run
            self._end(f"{self._folder} cannot be written to ({error})")

    def _end(self, why: str) -> None:
        self._over = True
        logger.warning("no more episodes are filmed: %s", why)

    def _write(self, episode: Episode) -> None:
        started = time.monotonic()
        path = path_of(self._folder, episode)
        write_film(path, pictures(episode), FPS)
        # Played again after a resume, it may have ended otherwise.
        for other in self._folder.glob(f"**/{_stem(episode.number)}_*{SUFFIX}"):
            if other != path:
                other.unlink()
        for old in _newest_first(self._folder)[self._settings.keep :]:
            old.unlink()
        logger.debug("%s written in %.2f s", path, time.monotonic() - started)


def path_of(folder: Path, episode: Episode) -> Path:
    """Return where a film of this episode lies: ``<task>/episode_000012_success.mp4``, or ``_fail``."""
    task = re.sub(r"[^\w-]+", "_", episode.task)[:80]
    ending = "success" if episode.success else "fail"
    return folder / task / f"{_stem(episode.number)}_{ending}{SUFFIX}"


def pictures(episode: Episode) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yield an episode's observations, all cameras side by side, and its last one in green or in red."""
    images = episode.observations.images
    views, channels = images.shape[1:3]
    times = max(1, -(-_SMALLEST // images.shape[-2]))
    picture = np.zeros(0)
    for shown in images:
        picture = np.concatenate([shown[view].transpose(1, 2, 0) for view in range(views)], axis=1)
        picture = np.repeat(np.repeat(picture, times, 0), times, 1)
        if channels == 1:
            picture = np.repeat(picture, 3, 2)
        yield picture
    for _ in range(_STILL):
        yield framed(picture, episode.success)


def _stem(number: int) -> str:
    return f"episode_{number:06d}"


def _newest_first(folder: Path) -> list[Path]:
    films = folder.glob(f"**/episode_*{SUFFIX}")
    return sorted(films, key=lambda film: (film.stat().st_mtime_ns, film.name), reverse=True)


def _sweep(folder: Path) -> None:
    """Remove what a killed learner has left half-written."""
    for partial in folder.glob(f"**/{PARTIAL}episode_*{SUFFIX}"):
        partial.unlink()
