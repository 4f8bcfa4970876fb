"""How many actors a policy server can act for: what they want, over what it gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pirl_jax.diagnosis.finding import Finding
from pirl_jax.serving.batching import Totals

_ENOUGH = 1.1
"""A larger batch that gives less than this much more is not worth measuring a still larger one."""
_LONGEST_S = 30.0


def supply(act: Callable[[int], object], sizes: Sequence[int]) -> dict[int, float]:
    """Return the chunks a second at each batch size, the largest left out once they give little or take long.

    Args:
        act: chooses as many chunks at once.
        sizes: ascending.
    """
    found: dict[int, float] = {}
    for size in sizes:
        act(size)
        started = time.monotonic()
        act(size)
        spent = time.monotonic() - started
        best = max(found.values(), default=0.0)
        found[size] = size / spent
        if found[size] < _ENOUGH * best or spent > _LONGEST_S:
            break
    return found


def between_chunks(totals: Totals) -> float:
    """Return the seconds that one actor takes from a chunk to its next question, resets included."""
    assert totals.first is not None
    of_policy = totals.waited_s + totals.answering_s
    return max(0.0, totals.last - totals.first - of_policy) / max(1, totals.answered - 1)


def actors_served(rates: dict[int, float], seconds: float) -> Finding:
    """Say how many actors are served before they wait for the policy instead of the policy for them.

    N actors that take s seconds between two chunks want N/s chunks a second; where that meets the most that
    the server gives is the number.

    Args:
        rates: of ``supply``.
        seconds: of ``between_chunks``.
    """
    size = max(rates, key=lambda each: rates[each])
    count = max(1, int(seconds * rates[size]))
    listed = ", ".join(f"{rate:.3g} at {batch}" for batch, rate in rates.items())
    value = (
        f"up to {count} actors before they wait for the policy: one asks every {seconds:.2g} s, the policy "
        f"gives {rates[size]:.3g} chunks a second (in batches: {listed}). Each simulator wants a core"
    )
    return Finding("the policy server is enough", value)
