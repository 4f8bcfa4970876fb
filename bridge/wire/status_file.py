"""How a run stands, in a file of its folder: for whoever has files alone, and after the run."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from bridge.wire import protocol
from bridge.wire.protocol import ProtocolError, Status

logger = logging.getLogger(__name__)

_EVERY_S = 2.0


@dataclass(frozen=True)
class Standing:
    """A learner's word on its run, and when it was given."""

    time: float
    """Unix seconds."""
    began: float
    """When the learner began to listen: actors' episodes are counted from there."""
    status: Status


class StatusFile:
    """Writes ``status.json`` every two seconds at most, in place of the one before.

    It is not flushed to the disk: what a crash of the machine costs is said again by the next learner. One
    that cannot be written costs the run nothing.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._began, self._written = path, time.time(), -_EVERY_S
        self._failed = False

    def write(self, status: Status) -> None:
        """Write how a run stands, unless that has just been done."""
        now = time.monotonic()
        if now - self._written < _EVERY_S:
            return
        self._written = now
        said = {"time": round(time.time(), 3), "began": round(self._began, 3), **dataclasses.asdict(status)}
        partial = self._path.with_name(f".partial-{self._path.name}")
        try:
            partial.write_text(json.dumps(said, allow_nan=False) + "\n", encoding="utf-8")
            os.replace(partial, self._path)
            self._failed = False
        except OSError as error:
            if not self._failed:
                logger.warning("%s cannot be written: %s", self._path, error)
            self._failed = True


def read_standing(path: Path) -> Standing | None:
    """Return what a learner has written last; None where there is nothing that can be read."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(protocol.MAX_JSON_BYTES))
        when, began = (float(said.pop(name)) for name in ("time", "began"))
        return Standing(when, began, protocol.decode(Status, json.dumps(said).encode()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ProtocolError):
        return None
