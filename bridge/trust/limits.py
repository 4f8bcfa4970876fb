"""How much of a server one host may take: calls at a time, messages and bytes a second."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_BURST_S = 1.0
"""A host may spend so many seconds' worth at once."""
_KNOWN_HOSTS = 1024


@dataclass
class _Host:
    calls: int = 0
    paid_until: float = 0.0
    """When all that it has sent would have come in at its rate."""


class Limits:
    """Counts by host, since a client that opens connections at will would evade whatever counts by those.

    Args:
        calls: That one host may have open at a time.
        messages_per_s: That one host may send.
        bytes_per_s: Likewise.
        clock: Seconds.
    """

    def __init__(
        self,
        calls: int,
        messages_per_s: float,
        bytes_per_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls, self._messages_per_s, self._bytes_per_s = calls, messages_per_s, bytes_per_s
        self._clock, self._lock = clock, threading.Lock()
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    @contextmanager
    def call(self, host: str) -> Iterator[bool]:
        """Count a call of a host's for as long as the context lasts; False: it has too many already."""
        with self._lock:
            entry = self._entry(host)
            room = entry.calls < self._calls
            entry.calls += room
        try:
            yield room
        finally:
            with self._lock:
                entry.calls -= room

    def pause(self, host: str, size: int) -> float:
        """Note a message of ``size`` bytes; return the seconds to wait before it is handed on.

        It costs the larger of its two shares of a second: of the messages, and of the bytes.
        """
        cost = max(1 / self._messages_per_s, size / self._bytes_per_s)
        with self._lock:
            now, entry = self._clock(), self._entry(host)
            entry.paid_until = max(now, entry.paid_until) + cost
            return max(0.0, entry.paid_until - now - _BURST_S)

    def _entry(self, host: str) -> _Host:
        entry = self._hosts.setdefault(host, _Host())
        self._hosts.move_to_end(host)
        if len(self._hosts) > _KNOWN_HOSTS:
            idle = next((name for name, other in self._hosts.items() if not other.calls), None)
            if idle is not None and idle != host:
                del self._hosts[idle]
        return entry
