"""Each new policy on its way to the actors, beside the loop that collects what they play."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from pirl_jax.rollout.behaviour import Behaviour, Behaviours, as_pushed


class Pushes:
    """Takes policies to host memory and publishes them, one after the other, on a thread of its own.

    A context manager: on leaving, the push on its way is finished.

    Args:
        publish: ``(version, what acts)``, with parameters in host memory, in the pushed dtype.
        behaviours: where a policy is to be found before anything that it played can arrive.
    """

    def __init__(self, publish: Callable[[int, Behaviour], None], behaviours: Behaviours) -> None:
        self._publish, self._behaviours = publish, behaviours
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="push")
        self._read = threading.Event()
        self._pushing: Future[None] | None = None

    def start(self, version: int, behaviour: Behaviour) -> None:
        """Begin to push a policy; see :meth:`release`."""
        self.check()
        self._read.clear()
        self._pushing = self._thread.submit(self._push, version, behaviour)

    def release(self) -> None:
        """Block until the parameters that are pushed may be donated."""
        self._read.wait()
        self.check()

    def check(self) -> None:
        """Raise what went wrong with the latest push, if it is over."""
        if self._pushing is not None and self._pushing.done():
            self._pushing.result()

    def __enter__(self) -> Pushes:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.shutdown()

    def _push(self, version: int, behaviour: Behaviour) -> None:
        try:
            pushed = as_pushed(behaviour)
            self._behaviours.add(version, behaviour, pushed)
            self._read.set()
            self._publish(version, pushed)
        finally:
            self._read.set()
