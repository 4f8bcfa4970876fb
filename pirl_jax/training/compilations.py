"""How many programs JAX has compiled in this process. A run that has found its shapes compiles no more."""

from __future__ import annotations

from functools import cache

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"


def count() -> int:
    """Return how many have been compiled since the first call, or read from a cache on disk."""
    return _counter()["compiled"]


@cache
def _counter() -> dict[str, int]:
    counter = {"compiled": 0}

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        counter["compiled"] += event == _EVENT

    jax.monitoring.register_event_duration_secs_listener(listen)
    return counter
