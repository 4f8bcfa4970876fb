"""An update's worth of episodes, in the order of their numbers: what is learned from and what is dropped."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pirl_jax.recipe import RolloutConfig
from pirl_jax.rollout.assignments import Assignments
from pirl_jax.rollout.behaviour import Behaviour, Behaviours
from pirl_jax.rollout.episode import Episode
from pirl_jax.rollout.groups import Groups
from pirl_jax.rollout.scoring import GAP_ADVICE, ScoredEpisode
from pirl_jax.rollout.tasks import RecentSuccess
from pirl_jax.typing import Int

logger = logging.getLogger(__name__)

REJECTED = ("unknown_version", "not_finite", "gap")
"""Why an episode cannot be used; its number is handed out again."""
DROPPED = (*REJECTED, "given_up", "broken_group", "uniform_group", "uniform_task")
"""Why an episode is not learned from, as counted under ``dropped/``."""

HARD_GAP = 10.0
"""Gap tolerances beyond which an actor has not acted as the learner scores: the ratio would be noise."""

_LEAST_REJECTED = 4
_POLL_SECONDS = 0.5
_SHORT_POLL_SECONDS = 0.05


class DisagreementError(ValueError):
    """Most episodes were not played as the learner scores them; says what to look at."""


@dataclass(frozen=True)
class Collected:
    """An episode to learn from."""

    episode: ScoredEpisode
    update: Int[np.ndarray, " T"]
    """Updates done when the policy that chose each chunk was pushed; -1 where that is not known any more."""

    @property
    def total_return(self) -> float:
        """Sum of the rewards."""
        return float(self.episode.reward.sum())


class Collector:
    """Receives and scores episodes, and hands them on in the order of their numbers.

    An episode that arrives is scored at once if its number may belong to the update that is awaited, together
    with others that wait, and kept as it came otherwise, so that beside those that are learned from no more
    than an update's worth of encoded observations lies in memory.

    Args:
        config: how many episodes, and which.
        groups: only complete groups from one initial state are learned from; None: all episodes.
        receive: ``timeout in seconds -> `` the next episode, or None.
        score: ``(episodes, who chose their chunks, by version) -> `` the episodes, encoded and scored; chunks
            of other versions are masked.
        together: observations that are scored for the time of one; episodes are scored together until they
            have as many.
        behaviours: policies that may have acted.
        assignments: whose numbers the episodes have.
        first: the first number that is not settled.
        stop: ends the waiting.
        report: told the task and success of every episode in its turn.

    Attributes:
        position: the lowest number that is not settled.
        scoring_s: seconds that scoring has taken so far.
    """

    def __init__(
        self,
        config: RolloutConfig,
        groups: Groups | None,
        receive: Callable[[float], Episode | None],
        score: Callable[[Sequence[Episode], Mapping[int, Behaviour]], list[ScoredEpisode]],
        together: int,
        behaviours: Behaviours,
        assignments: Assignments,
        first: int,
        stop: threading.Event,
        report: Callable[[str, bool], None] = lambda task, success: None,
    ) -> None:
        self._config, self._groups = config, groups
        self._receive, self._score, self._together = receive, score, together
        self._behaviours, self._assignments = behaviours, assignments
        self._stop, self._report = stop, report
        self._unscored: dict[int, Episode] = {}
        self._failed: BaseException | None = None
        self._ahead: dict[int, tuple[Episode, ScoredEpisode]] = {}
        self._scored: dict[int, Collected] = {}
        self._usable = 0  # of those that arrived for the update that is awaited
        self._rejected: set[int] = set()
        self._unreadable = 0  # numbers given up though nothing of them ever arrived
        self.position = first
        self.scoring_s = 0.0
        self._tasks = None
        if config.task_success_range is not None:
            self._tasks = RecentSuccess(config.task_window, config.task_success_range)

    def collect(self) -> tuple[list[Collected], Counter[str]]:
        """Wait for the episodes of the next update.

        Returns:
            The episodes, fewer if ``stop`` was set; and how many were dropped, by reason.

        Raises:
            DisagreementError: Most of what arrives is rejected.
            BaseException: What went wrong in ``meanwhile``.
        """
        if self._failed is not None:
            raise self._failed
        collected: list[Collected] = []
        dropped: Counter[str] = Counter()
        self._usable = self._unreadable = 0
        self._rejected = {number for number in self._rejected if number >= self.position}
        while not self._stop.is_set():
            missing = self._config.episodes_per_update - len(collected)
            window = range(self.position, self.position + missing)
            for pack in self._packs(set(window)):
                self._examine(pack, dropped)
            taken = self._take(missing, dropped)
            collected += taken
            if len(collected) == self._config.episodes_per_update:
                break
            if not taken:
                self._receive_all(_POLL_SECONDS)
        return collected, dropped

    @contextmanager
    def meanwhile(self) -> Iterator[None]:
        """Receive while the body runs, on a thread, and score what the next update may learn from.

        It is judged when it is collected. On leaving, the episode that is being scored is finished; what went
        wrong is raised by the next ``collect``: what the body has done is not lost for it.
        """
        done = threading.Event()

        def work() -> None:
            try:
                while not done.is_set():
                    self._score_ahead(done)
            except BaseException as error:  # raised again in the thread that learns
                self._failed = error

        thread = threading.Thread(target=work, name="scoring")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _score_ahead(self, done: threading.Event) -> None:
        self._receive_all(_SHORT_POLL_SECONDS)
        window = range(self.position, self.position + self._config.episodes_per_update)
        for pack in self._packs(set(window) - self._ahead.keys()):
            if not done.is_set():
                scored = self._score_together(pack)
                self._ahead |= {
                    each.number: (each, scored[each.number]) for each in pack if each.number in scored
                }

    def _receive_all(self, timeout: float) -> None:
        """Wait so many seconds for an episode, and take those that have arrived besides."""
        while (episode := self._receive(timeout)) is not None:
            self._unscored[episode.number] = episode
            timeout = 0.0

    def _packs(self, numbers: set[int]) -> Iterator[list[Episode]]:
        """Yield those that have arrived of episodes, as many at a time as are scored together."""
        pack: list[Episode] = []
        for number in sorted(self._unscored.keys() & numbers):
            pack.append(self._unscored[number])
            if sum(len(episode) + 1 for episode in pack) >= self._together:
                yield pack
                pack = []
        if pack:
            yield pack

    def _score_together(self, episodes: Sequence[Episode]) -> dict[int, ScoredEpisode]:
        """Return the episodes by number, scored, but for those of which no policy is known any more."""
        started = time.monotonic()
        by_number = {episode.number: self._behaviours.of(episode.version) for episode in episodes}
        known = [episode for episode in episodes if by_number[episode.number]]
        played = {version: each for by_version in by_number.values() for version, each in by_version.items()}
        scored = self._score(known, played) if known else []
        self.scoring_s += time.monotonic() - started
        return {episode.number: each for episode, each in zip(known, scored, strict=True)}

    @property
    def waiting(self) -> int:
        """Episodes that have arrived and not been learned from."""
        return len(self._unscored) + len(self._scored)

    @property
    def task_rates(self) -> dict[str, float]:
        """Recent success rate of each task; empty where tasks are not looked at."""
        return {} if self._tasks is None else self._tasks.rates

    def _examine(self, episodes: Sequence[Episode], dropped: Counter[str]) -> None:
        """Score episodes; keep them, or have their numbers played again."""
        ahead = {}
        for episode in episodes:
            del self._unscored[episode.number]
            scored_before, scored = self._ahead.pop(episode.number, (None, None))
            if scored is not None and scored_before is episode:
                ahead[episode.number] = scored
        now = self._score_together([episode for episode in episodes if episode.number not in ahead])
        for episode in episodes:
            self._judge(episode, (ahead | now).get(episode.number), dropped)

    def _judge(self, episode: Episode, scored: ScoredEpisode | None, dropped: Counter[str]) -> None:
        played = self._behaviours.of(episode.version)
        if scored is None or not played:
            versions = ", ".join(map(str, np.unique(episode.version)))
            self._reject(episode, "unknown_version", f"of policy version {versions}", dropped)
            return
        if not all(version in played for version in episode.version):  # some grew too old meanwhile
            scored = scored.without(~np.isin(episode.version, list(played)))
        # An action, token or domain that the policy cannot have seen.
        if not np.isfinite(scored.old_log_prob).all():
            self._reject(episode, "not_finite", "whose log-probability is not finite", dropped)
            return
        gap = scored.log_prob_gap
        if gap > scored.gap_tolerance:
            logger.warning(
                "the actor's log-probability differs from the learner's by %.3g nats a chunk: %s",
                gap,
                GAP_ADVICE,
            )
        if gap > HARD_GAP * scored.gap_tolerance:
            self._reject(episode, "gap", f"with a gap of {gap:.3g} nats a chunk", dropped)
            return
        self._usable += 1
        update = [
            played[version].update if version in played else -1 for version in map(int, episode.version)
        ]
        self._scored[episode.number] = Collected(scored, np.array(update))

    def _reject(self, episode: Episode, reason: str, words: str, dropped: Counter[str]) -> None:
        if not dropped[reason]:
            logger.warning("rejecting episode %d, %s; it is played again", episode.number, words)
        dropped[reason] += 1
        self._rejected.add(episode.number)
        self._assignments.reject(episode.number)
        self._stop_if_most_fail(dropped)

    def _stop_if_most_fail(self, dropped: Counter[str]) -> None:
        counts = {reason: dropped[reason] for reason in REJECTED} | {"unreadable": self._unreadable}
        failed = sum(counts.values())
        most = max(self._config.episodes_per_update // 2, _LEAST_REJECTED)
        if failed >= most and failed > self._usable:
            listed = ", ".join(f"{reason}: {count}" for reason, count in counts.items() if count)
            raise DisagreementError(
                f"{failed} episodes were rejected ({listed}) while {self._usable} could be used. "
                + (GAP_ADVICE if counts["gap"] else "Look at the logs of learner and actors.")
            )

    def _take(self, room: int, dropped: Counter[str]) -> list[Collected]:
        """Return what may be learned from, of the numbers whose turn it is."""
        taken: list[Collected] = []
        size = 1 if self._groups is None else self._groups.size
        while len(taken) < room:
            numbers = range(self.position, self.position + size)
            given_up = [number for number in numbers if self._assignments.is_given_up(number)]
            if sum(number in self._scored for number in numbers) + len(given_up) < size:
                break
            items = [self._scored.pop(number) for number in numbers if number not in given_up]
            self.position += size
            for item in items:
                self._report(item.episode.task, item.episode.success)
            dropped["given_up"] += len(given_up)
            if unreadable := len(set(given_up) - self._rejected):
                self._unreadable += unreadable
                self._stop_if_most_fail(dropped)
            kept = self._worth_learning(items, size, dropped)
            self._assignments.drop(size - len(kept))
            taken += kept
        return taken

    def _worth_learning(self, items: list[Collected], size: int, dropped: Counter[str]) -> list[Collected]:
        """Return the episodes of one turn, a single one or a group, or nothing if they teach nothing."""
        if len(items) < size:
            self._drop(dropped, "broken_group", len(items), "an episode of their group could not be played")
            return []
        if self._groups is not None and not self._groups.teaches([item.total_return for item in items]):
            words = "the returns of their groups are equal, or outside rollout.group_return_range"
            self._drop(dropped, "uniform_group", size, f"{words} (the last: {items[-1].total_return:.3g})")
            return []
        if self._tasks is not None:
            (episode,) = (item.episode for item in items)  # groups and ranges of success exclude each other
            if not self._tasks.add(episode.task, episode.success):
                self._drop(dropped, "uniform_task", 1, "their tasks succeed too seldom or too often")
                return []
        return items

    def _drop(self, dropped: Counter[str], reason: str, count: int, words: str) -> None:
        """Count, and say so each time as many as an update's episodes are gone: it may go on for ever."""
        size = self._config.episodes_per_update
        before, dropped[reason] = dropped[reason], dropped[reason] + count
        if before // size < dropped[reason] // size:
            logger.warning("%d episodes dropped for this update: %s", dropped[reason], words)
