"""An update's worth of episodes, out of those that actors send: what is learned from and what is dropped."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pirl_jax.recipe import RolloutConfig
from pirl_jax.rollout.behaviour import Behaviour, Behaviours
from pirl_jax.rollout.episode import Episode
from pirl_jax.rollout.groups import Groups
from pirl_jax.rollout.scoring import GAP_ADVICE, ScoredEpisode
from pirl_jax.rollout.tasks import RecentSuccess

logger = logging.getLogger(__name__)

DROPPED = ("stale", "unknown_version", "not_finite", "uniform_group", "uniform_task")
"""Why an episode is dropped, as counted under ``dropped/``."""

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Collected:
    """An episode to learn from."""

    episode: ScoredEpisode
    update: int
    """Updates done when the policy that acted was pushed."""

    @property
    def origin(self) -> tuple[str, int]:
        """Task and seed."""
        return self.episode.task, self.episode.seed

    @property
    def total_return(self) -> float:
        """Sum of the rewards."""
        return float(self.episode.reward.sum())


class Collector:
    """Receives and scores episodes, and keeps open groups and tasks' recent success between updates.

    Args:
        config: how many episodes, and which.
        groups: only complete groups from one initial state are learned from; None: all episodes.
        receive: ``timeout in seconds -> `` the next episode, or None.
        score: ``(episode, behaviour) -> `` the episode, encoded and scored.
        behaviours: policies that may have acted.
        stop: ends the waiting.
    """

    def __init__(
        self,
        config: RolloutConfig,
        groups: Groups[Collected] | None,
        receive: Callable[[float], Episode | None],
        score: Callable[[Episode, Behaviour], ScoredEpisode],
        behaviours: Behaviours,
        stop: threading.Event,
    ) -> None:
        self._config = config
        self._receive, self._score = receive, score
        self._behaviours = behaviours
        self._stop = stop
        self._groups = groups
        self._tasks = None
        if config.task_success_range is not None:
            self._tasks = RecentSuccess(config.task_window, config.task_success_range)

    def collect(self, update: int) -> tuple[list[Collected], Counter[str]]:
        """Wait for the episodes of the update that follows ``update`` others.

        Returns:
            The episodes, fewer if ``stop`` was set; and how many were dropped, by reason.
        """
        collected: list[Collected] = []
        dropped: Counter[str] = Counter()
        if self._groups is not None:
            dropped["stale"] += self._groups.drop_before(update - self._config.max_staleness)
        while len(collected) < self._config.episodes_per_update and not self._stop.is_set():
            episode = self._receive(_POLL_SECONDS)
            if episode is not None:
                collected += self._examine(episode, dropped)
        return collected, dropped

    @property
    def task_rates(self) -> dict[str, float]:
        """Recent success rate of each task; empty where tasks are not looked at."""
        return {} if self._tasks is None else self._tasks.rates

    def _examine(self, episode: Episode, dropped: Counter[str]) -> list[Collected]:
        """Return what the episode adds to the batch: itself, the group that it completes, or nothing."""
        behaviour = self._behaviours.get(episode.version)
        if behaviour is None:
            reason = "stale" if 0 < episode.version < self._behaviours.oldest else "unknown_version"
            if not dropped[reason]:
                logger.warning("dropping an episode of policy version %d (%s)", episode.version, reason)
            dropped[reason] += 1
            return []
        scored = self._score(episode, behaviour)
        # An action, token or domain that the policy cannot have seen.
        if not np.isfinite(scored.old_log_prob).all():
            logger.warning("dropping an episode whose log-probability is not finite")
            dropped["not_finite"] += 1
            return []
        if scored.log_prob_gap > scored.gap_tolerance:
            logger.warning(
                "the actor's log-probability differs from the learner's by %.3g nats a chunk: %s",
                scored.log_prob_gap,
                GAP_ADVICE,
            )
        if self._tasks is not None and not self._tasks.add(scored.task, scored.success):
            self._drop(dropped, "uniform_task", 1, "their tasks succeed too seldom or too often")
            return []
        item = Collected(scored, behaviour.update)
        if self._groups is None:
            return [item]
        members, uniform = self._groups.add(item)
        if uniform:
            words = "the returns of their groups are equal, or outside rollout.group_return_range"
            self._drop(dropped, "uniform_group", uniform, f"{words} (the last: {item.total_return:.3g})")
        return members

    def _drop(self, dropped: Counter[str], reason: str, count: int, words: str) -> None:
        """Count, and say so each time as many as an update's episodes are gone: it may go on for ever."""
        size = self._config.episodes_per_update
        before, dropped[reason] = dropped[reason], dropped[reason] + count
        if before // size < dropped[reason] // size:
            logger.warning("%d episodes dropped for this update: %s", dropped[reason], words)
