"""What a learner waits for, said once a minute while it waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from bridge.wire.protocol import Status
from pirl_jax.console.duration import duration

logger = logging.getLogger(__name__)

EVERY_S = 60.0
LONELY_S = 600.0
"""Seconds without an actor after which that is said loudly, and again each time they have passed."""
_POLL_S = 1.0


class Reminder:
    """Says how a run stands each minute without an update, on a thread of its own.

    Args:
        status: Of the learner.
        stopping: Set when the learner stops.
        show: Told at each look how the run stands.
    """

    def __init__(
        self,
        status: Callable[[], Status],
        stopping: threading.Event,
        show: Callable[[Status], None] = lambda status: None,
    ) -> None:
        self._status, self._stopping, self._show = status, stopping, show
        self._update = -1
        self._said = self._busy = time.monotonic()
        self._since = self._said, 0
        """When the update began to wait, as far as is known, and how many episodes were there then."""

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="reminder", daemon=True).start()

    def look(self, now: float) -> None:
        """Say what there is to say.

        Args:
            now: Seconds; none must be before those of an earlier look.
        """
        status = self._status()
        self._show(status)
        if status.update != self._update or status.version is None:
            self._update, self._said = status.update, now
            self._since = now, status.arrived
        if status.actors or status.version is None:
            self._busy = now
        if now - self._busy >= LONELY_S:
            self._busy = self._said = now
            logger.error(
                "no actor has been there for %.0f minutes. Start some (python -m lerobot.rl.actor), "
                "or look into the logs of those that should be there.",
                LONELY_S / 60,
            )
        if now - self._said >= EVERY_S:
            self._said = now
            logger.info("%s%s", status_in_words(status), self._left(status, now))

    def _left(self, status: Status, now: float) -> str:
        """Say how long the episodes that are awaited will take, if they come as those before."""
        since, before = self._since
        new, missing = status.arrived - before, status.awaited - status.arrived
        if new <= 0 or missing <= 0:
            return ""
        return f"; about {duration((now - since) / new * missing)} until all are there"

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_S):
            self.look(time.monotonic())


def status_in_words(status: Status) -> str:
    """Say what the next update is about."""
    return f"update {status.update + 1} {doing(status)}"


def doing(status: Status) -> str:
    """Say what an update waits for, or that it learns; follows its name."""
    evaluation = ""
    if status.evaluated < status.evaluation:
        evaluation = f"; of an evaluation {status.evaluated} of {status.evaluation} are over"
    if status.arrived >= status.awaited:
        return f"learns from its {status.awaited} episodes{evaluation}"
    actors = len(status.actors)
    return (
        f"waits: {status.arrived} of {status.awaited} episodes are there, "
        f"{actors} actor{'' if actors == 1 else 's'}, {status.playing} being played{evaluation}"
    )
