"""How often a process that ends is started again, and when."""

from __future__ import annotations

LONGEST_WAIT_S = 300.0


class Restarts:
    """Counts the ends of one process.

    Args:
        limit: Starts again within a window.
        window_s: The window, seconds.
        backoff_s: Wait before the first of them; it doubles with each that the window holds.

    Attributes:
        count: Starts again so far, those before the window included.
    """

    def __init__(self, limit: int, window_s: float, backoff_s: float) -> None:
        self._limit, self._window_s, self._backoff_s = limit, window_s, backoff_s
        self._ends: list[float] = []
        self.count = 0

    def after_end(self, now: float) -> float | None:
        """Note an end; return the seconds to wait before the next start, or None: it has ended too often."""
        self._ends = [end for end in self._ends if now - end < self._window_s]
        if len(self._ends) >= self._limit:
            return None
        wait = min(self._backoff_s * 2 ** len(self._ends), LONGEST_WAIT_S)
        self._ends.append(now)
        self.count += 1
        return wait
