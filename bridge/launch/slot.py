"""The place of one process of a run, and of those that follow it there."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Protocol

from bridge.launch.restarts import Restarts
from bridge.processes import Command
from pirl_jax.files import last_line, tail
from pirl_jax.recipe import LaunchConfig


class Process(Protocol):
    """What is used of ``bridge.processes.Command``."""

    @property
    def placed(self) -> bool:
        """It has a machine to run on."""
        ...

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


Start = Callable[[str, Sequence[str], Path, Mapping[str, str]], Process]
"""``(module, arguments, log, variables of its environment) -> process``."""


def start_command(
    module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
) -> Process:
    """Start a process that dies with this one."""
    return Command(module, arguments, log, environment=environment)


class Slot:
    """One process at a time, each with a folder and a log of its own: ``01``, ``01.log``, ``02``, ….

    Args:
        name: For people.
        module: What ``python -m`` runs.
        folder: Of folders and logs; what is there stays.
        settings: How often a process is started again.
        environment: Variables of the process.
        start: Starts one.

    Attributes:
        process: The one that runs, as far as is known.
        started: When, on the clock that the caller goes by.
        due: When the next may start.
        log: Of the newest.
        lost: Why no other is started; None: one is.
    """

    def __init__(
        self,
        name: str,
        module: str,
        folder: Path,
        settings: LaunchConfig,
        environment: Mapping[str, str],
        start: Start,
    ) -> None:
        self.name = name
        self._module, self._folder, self._environment, self._start = module, folder, environment, start
        self._restarts = Restarts(settings.max_restarts, settings.restart_window_s, settings.backoff_s)
        self.process: Process | None = None
        self.started = self.due = 0.0
        self.log = folder
        self.lost: str | None = None

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self._restarts.count

    def fresh(self) -> Path:
        """Return a folder that no process has had; its log goes beside it."""
        folders = (self._folder / f"{number:02}" for number in count(1))
        return next(one for one in folders if not one.exists() and not _log(one).exists())

    def start(self, arguments: Sequence[str], folder: Path, now: float) -> None:
        """Start a process whose folder is ``folder``, a fresh one."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.started = _log(folder), now
        self.process = self._start(self._module, arguments, self.log, self._environment)

    def ended(self) -> int | None:
        """Return the status of a process that has ended since the last look; None otherwise."""
        status = None if self.process is None else self.process.poll()
        if status is not None:
            self.process = None
        return status

    def again(self, now: float) -> float | None:
        """Return the seconds until the next start after an end, noted here; None: it has ended too often."""
        wait = self._restarts.after_end(now)
        self.due = now + (wait or 0.0)
        return wait

    def note_end(self, status: int, now: float, say: Callable[[str], None]) -> None:
        """Say how the process has ended and whether another follows, and when: ``due`` or ``lost``."""
        words = self.last_words()
        if status > 0 and words.startswith("error: "):
            # Our own words for what another start would meet again.
            self.lost = words
            say(f"{self.name} is not started again: {words}")
            return
        said, wait = f"{self.name} {how(status)}", self.again(now)
        if wait is None:
            self.lost = words
            say(f"{said}, once too often: it is not started again; {self.log}: {words}")
        else:
            say(f"{said} and is started again in {wait:.0f} s; {self.log}: {words}")

    def last_words(self) -> str:
        """Return the line that the newest process has ended with."""
        return last_line(tail(self.log))


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def how(status: int) -> str:
    """Say how a process has ended."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
