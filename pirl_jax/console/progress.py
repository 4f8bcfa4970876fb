"""How far something is that takes long: a bar on a terminal, elsewhere a line now and then.

A bar is there from the first moment and leaves nothing behind. Lines come by the log, after five seconds and
then at most one in ten. Whatever has taken more than five seconds says at its end how long that was.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from pirl_jax.console import last_time
from pirl_jax.console.duration import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

logger = logging.getLogger(__name__)

LONG_S = 5.0
"""What takes less is not spoken of where it cannot be taken back."""
LINE_EVERY_S = 10.0
_DRAWN_PER_S = 4
_on_screen = False
"""A bar is there. One inside it is told by lines, above it."""


class Progress:
    """How far something with a known end is; shown within its ``with`` block.

    Args:
        what: Is done, as ``encoding demonstrations``.
        total: How many there are of what is done.
        unit: Their name.
        done: How many were done before.
    """

    def __init__(self, what: str, total: int, unit: str = "", done: int = 0) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._begun = self._done = done
        self._more = ""
        self._started = self._told = 0.0
        self._bar: _Screen | None = None

    def advance(self, count: int = 1, more: str = "") -> None:
        """Tell that so many others are done; ``more`` is said beside it."""
        self.at(self._done + count, more)

    def at(self, done: int, more: str = "") -> None:
        """Tell how many are done altogether; ``more`` is said beside it."""
        self._done, self._more = done, more
        if self._bar is not None:
            self._bar.show(self._line(), done)
            return
        now = time.monotonic()
        if done < self._total and now - self._started >= LONG_S and now - self._told >= LINE_EVERY_S:
            self._told = now
            logger.info("%s", self._line())

    def _line(self) -> str:
        parts = [f"{self._what}: {self._done:,} of {self._total:,} {self._unit}".rstrip()]
        if self._more:
            parts.append(self._more)
        new = self._done - self._begun
        if new > 0 and self._done < self._total:
            left = (time.monotonic() - self._started) / new * (self._total - self._done)
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def __enter__(self) -> Self:
        self._started, self._told = time.monotonic(), float("-inf")
        self._bar = _Screen.take(self._line(), self._total, self._done)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.give_back()
        took = time.monotonic() - self._started
        if kind is None and took >= LONG_S:
            more = f", {self._more}" if self._more else ""
            count = f"{self._done - self._begun:,} {self._unit}".rstrip()
            logger.info("%s: %s in %s%s", self._what, count, duration(took), more)


@contextmanager
def working(what: str, known_as: str = "") -> Iterator[None]:
    """Say that something is done of which nobody knows how far it is, how long it took last, and at its end.

    Args:
        what: Is done, as ``compiling the update``.
        known_as: What its duration hangs on, as the size of what is compiled; "": nobody will know next time.
    """
    key = f"{what}; {known_as}"
    before, started = last_time.seconds(key) if known_as else None, time.monotonic()
    expected = "" if before is None else f": the last time it took {duration(before)}"
    logger.info("%s%s", what, expected)
    bar = _Screen.take(f"{what}{expected}", None, 0)
    try:
        yield
    finally:
        if bar is not None:
            bar.give_back()
    took = time.monotonic() - started
    if took >= LONG_S:
        logger.info("%s: done in %s", what, duration(took))
    if known_as and (took >= LONG_S or before is not None):  # it may have become quick
        last_time.note(key, took)


class _Screen:
    """A line of a terminal with a bar in it."""

    def __init__(self, bar: Bar, line: str, total: int | None, done: int) -> None:
        self._bar = bar
        self._task = bar.add_task(line, total=total, completed=done)

    @classmethod
    def take(cls, line: str, total: int | None, done: int) -> _Screen | None:
        """Show a bar on standard error; None: that is no terminal, or there is one already."""
        global _on_screen
        if _on_screen or not sys.stderr.isatty():
            return None
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        console = Console(stderr=True)
        if console.is_dumb_terminal:
            return None
        one_line = Column(no_wrap=True, overflow="ellipsis")
        text = TextColumn("{task.description}", markup=False, table_column=one_line)
        bar = Bar(
            *(text, BarColumn(bar_width=20), TimeElapsedColumn()),
            console=console,
            transient=True,
            refresh_per_second=_DRAWN_PER_S,
        )
        bar.start()
        console.show_cursor()  # which whoever kills this process would have to do without
        _on_screen = True
        return cls(bar, line, total, done)

    def show(self, line: str, done: int) -> None:
        self._bar.update(self._task, description=line, completed=done)

    def give_back(self) -> None:
        global _on_screen
        _on_screen = False
        self._bar.stop()
