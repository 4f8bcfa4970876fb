"""How long something took when it was last done on this machine, which is all that is known beforehand."""

from __future__ import annotations

import os
from pathlib import Path

from pirl_jax.files import read_json, write_json


def file() -> Path:
    """Return where it is written down."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pirl_jax" / "seconds.json"


def seconds(what: str) -> float | None:
    """Return how long something took; None: that is not known."""
    found = _read().get(what)
    return found if isinstance(found, int | float) and found > 0 else None


def note(what: str, took: float) -> None:
    """Write down how long something took; where that cannot be, nobody will know."""
    try:
        file().parent.mkdir(parents=True, exist_ok=True)
        write_json(file(), _read() | {what: round(took, 1)})
    except OSError:
        return


def _read() -> dict[str, object]:
    try:
        return read_json(file())
    except (OSError, ValueError):
        return {}
