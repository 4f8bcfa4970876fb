"""One of several processes of a kind that play a run: started, and started again under its number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from bridge.launch.slot import Slot, Start
from bridge.wire.protocol import Status
from pirl_jax.recipe import LaunchConfig


class Worker(ABC):
    """A process, and those that follow it under its number.

    Args:
        number: Of the process among those of its kind.
        arguments: Of every process of its kind.
        folder: For the folders and logs of this one.
        settings: Of the launch.
        start: Starts a process.
        say: Told what happens, in words.

    Attributes:
        ending: It was asked to end, and none follows it.
    """

    kind: ClassVar[str]
    """For people."""
    module: ClassVar[str]
    """What ``python -m`` runs."""

    def __init__(
        self,
        number: int,
        arguments: tuple[str, ...],
        folder: Path,
        settings: LaunchConfig,
        start: Start,
        say: Callable[[str], None],
    ) -> None:
        self.number, self._arguments, self._settings, self._say = number, arguments, settings, say
        environment = self.environment(settings, number)
        self.slot = Slot(f"{self.kind} {number}", self.module, folder, settings, environment, start)
        self.ending = False

    @staticmethod
    @abstractmethod
    def environment(settings: LaunchConfig, number: int) -> dict[str, str]:
        """Return the variables that the process has besides the launch's own."""

    def step(self, now: float, status: Status | None) -> None:
        """Look after the process.

        Args:
            now: Seconds.
            status: The learner's word; None: it does not listen.
        """
        ended = self.slot.ended()
        if ended is not None:
            self.slot.note_end(ended, now, self._say)
        elif self.slot.process is not None:
            self._end_if_silent(self._silent_s(now, status))
        elif self.slot.lost is None and self._may_begin(status) and now >= self.slot.due:
            self._begin(now)

    def end(self) -> None:
        """Ask the process to end, once; no other follows it."""
        self.slot.ended()
        if not self.ending and self.slot.process is not None:
            self.slot.process.terminate()
        self.ending = True

    def _may_begin(self, status: Status | None) -> bool:
        return True

    def _silent_s(self, now: float, status: Status | None) -> float:
        """Return for how many seconds nothing was heard of a process that runs; 0 where nobody listens."""
        return 0.0

    def _end_if_silent(self, seconds: float) -> None:
        if seconds > self._settings.hang_after_s and self.slot.process is not None:
            self.slot.process.kill()
            self._say(f"{self.slot.name} was not heard of for {seconds:.0f} s: killed")

    @abstractmethod
    def _begin(self, now: float) -> None:
        """Start the next process."""


def dealt(number: int, devices: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return the variables by which a process sees its own of some devices, which are dealt out in turn.

    Args:
        number: Of the process.
        devices: Variable → devices; (): it sees what there is.
    """
    return {name: str(some[number % len(some)]) for name, some in devices.items() if some}
