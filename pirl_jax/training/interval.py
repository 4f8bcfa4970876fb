"""How sure a success rate is."""

from __future__ import annotations

import math

_Z95 = 1.959963984540054


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a proportion (E. B. Wilson, JASA 1927).

    Raises:
        ValueError: ``n`` is 0, or ``successes`` not in [0, n].
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"wilson needs 0 ≤ successes ≤ n and n > 0; got {successes} of {n}.")
    return score_limits(successes / n, _Z95**2 / n)


def score_limits(rate: float, weight: float) -> tuple[float, float]:
    """Return between which p lie that differ from a rate by at most √(weight · p (1 − p)).

    Args:
        rate: In [0, 1].
        weight: z²/n for Wilson's interval of n episodes.
    """
    centre = (rate + weight / 2) / (1 + weight)
    half = math.sqrt(rate * (1 - rate) * weight + weight**2 / 4) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)
