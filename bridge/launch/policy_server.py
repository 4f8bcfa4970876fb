"""One of the launch's policy servers (``algorithm.serve.mode=process``): started, and started again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bridge.launch.slot import Slot, Start
from pirl_jax.recipe import LaunchConfig

MODULE = "pirl_jax.serve"


class PolicyServer:
    """A policy server, and those that follow it under its number.

    Args:
        number: Of the replica.
        arguments: Of every policy server of the run.
        folder: For the logs of this one.
        settings: Of the launch.
        start: Starts a process.
        say: Told what happens, in words.
    """

    def __init__(
        self,
        number: int,
        arguments: tuple[str, ...],
        folder: Path,
        settings: LaunchConfig,
        start: Start,
        say: Callable[[str], None],
    ) -> None:
        self._arguments, self._say = (*arguments, f"--replica={number}"), say
        devices = settings.server_devices
        seen = {"CUDA_VISIBLE_DEVICES": str(devices[number % len(devices)])} if devices else {}
        self.slot = Slot(f"policy server {number}", MODULE, folder, settings, seen, start)

    def step(self, now: float) -> None:
        """Look after the process; it needs no learner to be there."""
        ended = self.slot.ended()
        if ended is not None:
            self.slot.note_end(ended, now, self._say)
        elif self.slot.process is None and self.slot.lost is None and now >= self.slot.due:
            self.slot.start(self._arguments, self.slot.fresh(), now)
            self._say(f"{self.slot.name} starts: {self.slot.log}")

    def end(self) -> None:
        """Ask the process to end."""
        if self.slot.process is not None:
            self.slot.process.terminate()
