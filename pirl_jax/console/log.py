"""One form for every command's lines: ``14:02:07 what there is to say``, with a level unless it is INFO."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

OURS = ("pirl_jax", "bridge", "__main__")
"""Packages that are heard from INFO on; libraries are from WARNING on."""
SILENT = {"absl": logging.CRITICAL}
"""Loggers → the level from which they are heard: Orbax logs a hundred lines on errors that it raises too."""


class LineFormatter(logging.Formatter):
    """The time, the level if it is worth a word, and the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(level)s%(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line; an exception's traceback follows below."""
        record.__dict__["level"] = "" if record.levelno == logging.INFO else f"{record.levelname} "
        return super().format(record)


class ConsoleHandler(logging.StreamHandler):
    """Writes to what is standard error at the moment, which a progress bar replaces while it is there.

    Args:
        heard: Loggers from whose names on records are news.
    """

    def __init__(self, heard: Sequence[str] = OURS) -> None:
        super().__init__(sys.stderr)
        self._heard = heard
        self.setFormatter(LineFormatter())
        self.addFilter(self._is_worth_a_line)

    def _is_worth_a_line(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.partition(".")[0] in self._heard

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


def log_to_console(also: Sequence[str] = ()) -> None:
    """Have all that is logged in this process come as our lines on standard error; more than once is once.

    Handlers of others that write to files stay as they are.

    Args:
        also: Loggers besides ours that are heard from INFO on.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) in (logging.StreamHandler, ConsoleHandler):
            root.removeHandler(handler)
    root.addHandler(ConsoleHandler((*OURS, *also)))
    root.setLevel(logging.INFO)
    for name, level in SILENT.items():
        logging.getLogger(name).setLevel(level)
