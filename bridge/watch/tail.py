"""Rows of a ``metrics.jsonl`` that is being written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_AT_ONCE = 1 << 24
"""Bytes that one call reads."""
_LONGEST_ROW = 1 << 22
"""Bytes; what is longer is no row."""


class Tail:
    """Reads a file as it grows, by its byte offset; what is read once is not read again.

    Args:
        path: Need not exist.

    Attributes:
        broken: Lines so far that are no row.
        beginning: Counts how often the file began anew: a resumed run puts another in its place.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()
        self.beginning = 0

    def _begin(self) -> None:
        self._offset, self._size, self._inode = 0, 0, -1
        self.broken = 0

    @property
    def rest(self) -> int:
        """Bytes that were there at the last look and are not read yet."""
        return max(0, self._size - self._offset)

    def read(self) -> list[dict[str, Any]]:
        """Return the rows that have come, some of them where there are many: call until ``rest`` is small."""
        try:
            with self._path.open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_ino != self._inode or about.st_size < self._offset:
                    if self._inode >= 0:
                        self.beginning += 1
                    self._begin()
                    self._inode = about.st_ino
                self._size = about.st_size
                file.seek(self._offset)
                data = file.read(_AT_ONCE)
        except OSError:
            if self._inode >= 0:
                self.beginning += 1
            self._begin()
            return []
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) > _LONGEST_ROW:
            whole = len(data)  # its end will be no row either
        self._offset += whole  # a line without its end is still being written
        return [row for line in data[:whole].splitlines() if line.strip() and (row := self._row(line))]

    def _row(self, line: bytes) -> dict[str, Any] | None:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and type(row.get("step")) is int and abs(row["step"]) < 1 << 53:
            return row
        self.broken += 1
        return None
