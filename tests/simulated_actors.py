"""Actors in simulated time, in which an episode takes as long as it is said to."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable

from toy_run import episode

from pirl_jax.rollout.assignments import Assignment, Assignments, Verdict
from pirl_jax.rollout.episode import Episode


class SimulatedActors:
    """Play what is assigned.

    Args:
        assignments: The learner's.
        count: Of actors.
        duration: Number of an episode → how long it takes.
    """

    def __init__(self, assignments: Assignments, count: int, duration: Callable[[int], float]) -> None:
        self._assignments, self._duration = assignments, duration
        self._idle = [f"actor {i}" for i in range(count)]
        self._busy: list[tuple[float, int, str, Assignment]] = []
        self._arrived: list[Episode] = []
        self.now = 0.0

    def receive(self, timeout: float) -> Episode:
        """Return the next episode that is finished."""
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
                (self.now + self._duration(assigned.number), assigned.number, actor, assigned),
            )

    def _finish(self) -> None:
        self.now, number, actor, assigned = heapq.heappop(self._busy)
        assert self._assignments.deliver(number, assigned.seed) is Verdict.WANTED
        self._arrived.append(
            dataclasses.replace(
                episode(0, 1, terminated=True, version=assigned.version), number=assigned.number
            )
        )
        self._idle.append(actor)
