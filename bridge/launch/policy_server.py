"""One of the launch's policy servers (``algorithm.serve.mode=process``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bridge.launch.slot import Start
from bridge.launch.worker import Worker, dealt
from bridge.wire.policy_servers import GONE_AFTER_S
from bridge.wire.protocol import Status
from pirl_jax.recipe import LaunchConfig


class PolicyServer(Worker):
    """A policy server, and those that follow it under its number; it needs no learner to be there.

    Args:
        number: See ``Worker``, as for what follows.
        arguments: Likewise.
        folder: Likewise.
        settings: Likewise.
        start: Likewise.
        say: Likewise.
        address: Where it listens, ``host:port``.
    """

    kind, module = "policy server", "pirl_jax.serve"

    def __init__(
        self,
        number: int,
        arguments: tuple[str, ...],
        folder: Path,
        settings: LaunchConfig,
        start: Start,
        say: Callable[[str], None],
        address: str,
    ) -> None:
        super().__init__(number, arguments, folder, settings, start, say)
        self._address = address
        self._heard: float | None = None

    @staticmethod
    def environment(settings: LaunchConfig, number: int) -> dict[str, str]:
        return dealt(number, {"CUDA_VISIBLE_DEVICES": settings.server_devices})

    def _begin(self, now: float) -> None:
        self.slot.start((*self._arguments, f"--replica={self.number}"), self.slot.fresh(), now)
        self._heard = None
        self._say(f"{self.slot.name} starts: {self.slot.log}")

    def _silent_s(self, now: float, status: Status | None) -> float:
        if status is None:
            self._heard = self._heard and now
        # For some seconds the learner remembers the one before it, at the same address.
        elif self._address in status.servers and now - self.slot.started > GONE_AFTER_S:
            self._heard = now
        return 0.0 if self._heard is None else now - self._heard
