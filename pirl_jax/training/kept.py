"""The state of the last update that is done, beside the one that an update works in."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pirl_jax.placement import ONE_DEVICE, Placement
from pirl_jax.recipe import WatchdogConfig
from pirl_jax.training.checkpoint import in_host_memory

_LITTLE = 2**30
"""Bytes of a state that a CPU's memory has room for a second time without asking."""


class Kept:
    """Has a state copied to host memory by a thread: an update works in the memory of what it begins with."""

    def __init__(self, placement: Placement = ONE_DEVICE) -> None:
        self._placement = placement
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keep")
        self._state: Future[Any] | None = None
        self._lock = threading.Lock()  # another thread may ask for the state, to save it

    def keep(self, state: Any) -> None:
        """Begin to copy a state; see :meth:`release`. The one before is forgotten."""
        with self._lock:
            self._state = None  # its memory is free before the next takes any
            self._state = self._thread.submit(in_host_memory, state)

    def release(self) -> None:
        """Block until the state may be donated."""
        if self._state is not None:
            self._state.result()

    @property
    def state(self) -> Any:
        """What was kept, as arrays in host memory."""
        with self._lock:
            state = self._state
        assert state is not None
        return state.result()

    def on_device(self) -> Any:
        """Return a copy of what was kept that may be donated."""
        return self._placement.split(self.state)


def keeps(config: WatchdogConfig, size: int, on_cpu: bool, left: float = 0) -> bool:
    """Tell whether a run keeps its state.

    Args:
        config: of the run.
        size: of the state, in bytes.
        on_cpu: whether the device is the host.
        left: bytes that run and actors leave of the host's memory.
    """
    if config.keep == "auto":
        return not on_cpu or size <= max(_LITTLE, left)
    return config.keep == "always"
