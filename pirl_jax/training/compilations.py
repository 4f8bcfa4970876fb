"""Programs that JAX compiles: how many, and where they are kept for the next process."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"


def keep_on_disk() -> Path | None:
    """Have programs for a GPU kept for the next process, unless JAX has been told where; return the folder.

    Programs for a CPU are not: those of one machine may not run on another that shares the folder.
    """
    if jax.default_backend() == "cpu" or jax.config.jax_compilation_cache_dir:
        return None
    folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pirl_jax" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def count() -> int:
    """Return how many have been compiled since the first call, or read from a cache on disk.

    A run that has found its shapes compiles no more.
    """
    return _counter()["compiled"]


@cache
def _counter() -> dict[str, int]:
    counter = {"compiled": 0}

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        counter["compiled"] += event == _EVENT

    jax.monitoring.register_event_duration_secs_listener(listen)
    return counter
