"""Which of a task's initial states are meant: ``first:end``, as Python and LeRobot write a slice."""

from __future__ import annotations

import re

from bridge.libero.suites import INIT_STATES


def read(setting: str, text: str | None, count: int = INIT_STATES) -> range:
    """Return the initial states that a setting names: ``20:50`` are those from 20 to 49.

    Args:
        setting: Its name, for people.
        text: ``first:end``; without ``first`` from 0 on, without ``end`` up to the last. None: all.
        count: How many a task has.

    Raises:
        ValueError: It is written otherwise, names no state, or one that a task has not.
    """
    found = re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", ":" if text is None else text)
    if found is None:
        raise ValueError(f"{setting} must be first:end, as 20:{count}; got {text!r}.")
    first, end = int(found[1] or 0), int(found[2] or count)
    if not first < end <= count:
        raise ValueError(
            f"{setting} must name some of the {count} initial states of a task, from 0 on, as 20:{count} for "
            f"those from 20 to {count - 1}; got {text!r}."
        )
    return range(first, end)


def overlap(a: range, b: range) -> range:
    """Return the initial states that are in both."""
    return range(max(a.start, b.start), min(a.stop, b.stop))
