"""Actors in simulated time, in which an episode takes as long as it is said to."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable

import numpy as np
from toy_run import episode

from pirl_jax.rollout.assignments import Assignment, Assignments, Verdict
from pirl_jax.rollout.episode import Episode


class SimulatedActors:
    """Play what is assigned.

    Args:
        assignments: The learner's.
        count: Of actors.
        duration: Number of an episode → how long it takes.
        chunks: Number of an episode → how many chunks it has, at equal distances in time.

    Attributes:
        served: When the learner has made each version from the second on: a chunk is chosen by the newest, as
            by a policy server. While there is none, by the version of the assignment, as by an actor's own.
    """

    def __init__(
        self,
        assignments: Assignments,
        count: int,
        duration: Callable[[int], float],
        chunks: Callable[[int], int] = lambda number: 1,
    ) -> None:
        self._assignments, self._duration, self._chunks = assignments, duration, chunks
        self.served: list[float] = []
        self._idle = [f"actor {i}" for i in range(count)]
        self._busy: list[tuple[float, int, float, str, Assignment]] = []
        self._arrived: list[Episode] = []
        self.now = 0.0

    def receive(self, timeout: float) -> Episode | None:
        """Return the next episode that is finished; without a timeout, of those that are already."""
        if not timeout and not self._arrived:
            return None
        while not self._arrived:
            self._start()
            assert self._busy, "everybody waits for everybody"
            self._finish()
        return self._arrived.pop(0)

    def learner_updates(self, seconds: float) -> None:
        """Let time pass in which the learner is busy; actors go on as far as they may."""
        until = self.now + seconds
        self._start()
        while self._busy and self._busy[0][0] <= until:
            self._finish()
            self._start()
        self.now = until

    def _start(self) -> None:
        while self._idle and (assigned := self._assignments.next(self._idle[-1], 0)) is not None:
            actor = self._idle.pop()
            heapq.heappush(
                self._busy,
                (self.now + self._duration(assigned.number), assigned.number, self.now, actor, assigned),
            )

    def _finish(self) -> None:
        self.now, number, started, actor, assigned = heapq.heappop(self._busy)
        chosen = np.linspace(started, self.now, self._chunks(number), endpoint=False)
        newest = 1 + np.searchsorted(self.served, chosen, side="right")
        version = np.maximum(newest, assigned.version)
        assert self._assignments.deliver(number, assigned.seed) is Verdict.WANTED
        self._arrived.append(
            dataclasses.replace(
                episode(0, len(version), terminated=True, version=version), number=assigned.number
            )
        )
        self._idle.append(actor)
