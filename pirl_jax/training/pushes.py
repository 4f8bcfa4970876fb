"""Each new policy on its way to the actors, beside the loop that collects what they play."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from pirl_jax.rollout.behaviour import Behaviour, Behaviours, as_pushed


class Pushes:
    """Takes policies to host memory and publishes them, one after the other, on a thread of its own.

    A context manager: on leaving, the pushes on their way are finished.

    Args:
        publish: ``(version, what acts)``, with parameters in host memory, in the pushed dtype.
        behaviours: where a policy is to be found before anything that it played can arrive.

    Attributes:
        seconds: that the newest push took which is over.
    """

    def __init__(self, publish: Callable[[int, Behaviour], None], behaviours: Behaviours) -> None:
        self._publish, self._behaviours = publish, behaviours
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="push")
        self._read = threading.Event()
        self._pushing: list[Future[None]] = []
        self.seconds = 0.0

    def start(self, version: int, behaviour: Behaviour) -> None:
        """Begin to push a policy; see :meth:`release`. What goes wrong is raised by :meth:`check`."""
        self._read = threading.Event()
        self._pushing.append(self._thread.submit(self._push, version, behaviour, self._read))

    def release(self) -> None:
        """Block until the parameters of the newest push, and so of all, may be donated."""
        self._read.wait()
        self.check()

    def check(self) -> None:
        """Raise what went wrong with a push that is over."""
        over = [push for push in self._pushing if push.done()]
        for push in over:
            push.result()
        self._pushing = [push for push in self._pushing if push not in over]

    def __enter__(self) -> Pushes:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.shutdown()

    def _push(self, version: int, behaviour: Behaviour, read: threading.Event) -> None:
        started = time.monotonic()
        try:
            pushed = as_pushed(behaviour)
            self._behaviours.add(version, behaviour, pushed)
            read.set()
            self._publish(version, pushed)
            self.seconds = time.monotonic() - started
        finally:
            read.set()
