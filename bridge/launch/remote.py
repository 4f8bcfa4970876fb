"""A process of the launch's that runs on a node of a Ray cluster."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.launch.host import MOST

_KILL_S = 5.0
"""For a node to answer that it has killed a process; Ray kills it otherwise."""


class Remote:
    """What the launch knows of a process elsewhere (``slot.Process``): its log, and how it has ended.

    Asked by ``poll``, which does not wait for an answer.

    Args:
        ray: The module, connected.
        host: A ``Host`` that Ray places, or has placed.
        start: Has it start the process; returns Ray's reference to the answer.
        log: For what the process prints.
        room: What a node must have free for it, in words.

    Attributes:
        placed: It has been given a node, and runs there.
    """

    def __init__(self, ray: Any, host: Any, start: Callable[[], Any], log: Path, room: str) -> None:
        self._ray, self._host, self.placed = ray, host, False
        self._out = log.open("wb", buffering=0)
        self._read = 0
        self._status: int | None = None
        self._answer = start()
        self._note(f"waits for a node that has {room} free")

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs or waits for a node."""
        errors = self._ray.exceptions
        if self._status is not None or not self._ray.wait([self._answer], timeout=0)[0]:
            return self._status
        try:
            answer = self._ray.get(self._answer)
        except errors.ActorUnavailableError:  # a connection was lost, and Ray tries to find it again
            answer = None
        except errors.RayActorError as error:
            self._note(f"its node, or Ray's process there, is gone: {error}")
            return self._end(-signal.SIGKILL)
        except errors.RayTaskError as error:
            self._note(str(error.cause), "error")
            return self._end(1)
        if self.placed and answer is not None:
            text, status = answer
            self._take(text)
            if status is not None and len(text) < MOST:
                return self._end(status)
        self.placed = True
        self._answer = self._host.news.remote(self._read)
        return None

    def terminate(self) -> None:
        """Ask it to end; one that has no node yet has ended."""
        if not self.placed:
            self._end(-signal.SIGTERM)
        elif self._status is None:
            self._host.terminate.remote()

    def kill(self) -> None:
        """End it, and what it has started."""
        if self._status is not None:
            return
        if self.placed:
            try:
                self._take(self._ray.get(self._host.kill.remote(self._read), timeout=_KILL_S))
            except self._ray.exceptions.RayError as error:
                self._note(f"its node has not answered that it is killed: {error}")
        self._end(-signal.SIGKILL)

    def _take(self, text: bytes) -> None:
        self._out.write(text)
        self._read += len(text)

    def _note(self, words: str, by: str = "pirl-launch") -> None:
        self._out.write(f"{by}: {' '.join(words.split())}\n".encode())

    def _end(self, status: int) -> int:
        self._status = status
        self._ray.kill(self._host)
        self._out.close()
        return status
