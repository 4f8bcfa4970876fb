"""What a person sees of a run: a table that stays on the screen, or lines where there is none."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bridge.wire.reminder import doing
from pirl_jax.console.duration import duration
from pirl_jax.training.metrics import PC_SUCCESS

if TYPE_CHECKING:
    from bridge.launch.actor import Actor
    from bridge.launch.supervisor import Supervisor

_LINE_EVERY_S = 60.0
_TABLE_EVERY_S = 1.0


class Lines:
    """A line at each event, and one on the run after each update and each minute."""

    def __init__(self) -> None:
        self._told = time.monotonic()
        self._update: int | None = None

    def say(self, line: str) -> None:
        """Print what has happened, with the time."""
        print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)

    def show(self, supervisor: Supervisor) -> None:
        """Print the run's line if there is a new update, or once a minute."""
        update = supervisor.pace.update
        new = self._update is not None and update > self._update
        self._update = update
        if new or time.monotonic() - self._told >= _LINE_EVERY_S:
            self._told = time.monotonic()
            self.say(run_line(supervisor))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Screen:
    """The run's line and a table of the actors, below what has happened."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)  # no thread of its own
        self._shown = 0.0

    def say(self, line: str) -> None:
        """Print above the table what has happened."""
        self._live.console.print(Text(f"{time.strftime('%H:%M:%S')} {line}"))

    def show(self, supervisor: Supervisor) -> None:
        """Draw the table anew."""
        if time.monotonic() - self._shown >= _TABLE_EVERY_S:
            self._shown = time.monotonic()
            self._live.update(Group(Text(run_line(supervisor)), actor_table(supervisor)), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        with while_someone_reads(lambda: None):
            self._live.stop()


def board() -> Screen | Lines:
    """Return a screen if standard output is one on which a table can stay, else lines."""
    console = Console()
    return Screen(console) if sys.stdout.isatty() and not console.is_dumb_terminal else Lines()


@contextmanager
def while_someone_reads(otherwise: Callable[[], None]) -> Iterator[None]:
    """Within it standard output may be a pipe that nobody reads any more, or a terminal that was closed.

    What is printed goes to standard error from then on, or nowhere if that has gone, too.

    Args:
        otherwise: Called when it is found out.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        try:
            os.write(2, b"nobody reads the output any more\n")
            os.dup2(2, 1)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        otherwise()


def run_line(supervisor: Supervisor) -> str:
    """Say in one line how a run stands."""
    pace, status, plan = supervisor.pace, supervisor.status, supervisor.plan
    done = pace.update if status is None else status.update
    parts = [f"update {done} of {plan.updates}"]
    if pace.episodes_per_minute is not None:
        parts.append(f"{pace.episodes_per_minute:.0f} episodes/min")
    if pace.success is not None:
        parts.append(f"success {pace.success:.0%}")
    if (row := pace.evaluated) is not None:
        low, high = row["eval/interval_low"], row["eval/interval_high"]
        parts.append(f"evaluated {row[PC_SUCCESS]:.0f}% ({low:.0f}–{high:.0f}) at update {row['step']}")
    if supervisor.learner.process is None and (supervisor.stopping or supervisor.learned):
        parts.append("the actors end")
    elif supervisor.stopping or supervisor.learned:
        parts.append("the learner saves")
    elif status is None:
        parts.append("waiting for the learner to listen")
    else:
        parts.append(doing(status))
    if pace.update_s is not None and pace.steady and not supervisor.stopping and done < plan.updates:
        parts.append(f"{duration((plan.updates - done) * pace.update_s)} left")
    return ", ".join(parts)


def actor_table(supervisor: Supervisor) -> Table:
    """Return a row an actor, those that others have started included."""
    table = Table("actor", "state", "versions behind", "heard of", "episodes", "restarts", box=None)
    status, now = supervisor.status, time.monotonic()
    newest = None if status is None else status.version
    for actor in supervisor.actors:
        runs = actor.slot.process is not None
        heard = f"{now - actor.heard:.0f} s ago" if runs and actor.registered else "–"
        behind = _behind(newest, actor.version if runs else None)
        row = (state(actor, now), behind, heard, str(actor.episodes), str(actor.slot.restarts))
        table.add_row(actor.name, *row)
    ours = {actor.name for actor in supervisor.actors}
    for other in [] if status is None else status.actors:
        if other.name not in ours:
            behind, heard = _behind(newest, other.version), f"{other.silent_ms / 1000:.0f} s ago"
            table.add_row(Text(other.name), "elsewhere", behind, heard, str(other.episodes), "–")
    return table


def state(actor: Actor, now: float) -> str:
    """Say in a word or two what an actor is about."""
    slot = actor.slot
    if slot.lost is not None:
        return "lost"
    if actor.ending:
        return "ended" if slot.process is None else "ends"
    if slot.process is None:
        return f"starts in {slot.due - now:.0f} s" if slot.due > now else "waits for the learner"
    if not slot.process.placed:
        return "waits for room"
    return "plays" if actor.registered else "loads"


def _behind(newest: int | None, version: int | None) -> str:
    return "–" if newest is None or version is None else str(newest - version)
