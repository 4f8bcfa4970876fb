"""Intervals and tests for pairs of success rates."""

from __future__ import annotations

import math

from scipy.stats import binomtest

from pirl_jax.training.interval import wilson


def paired_difference(both: int, only_a: int, only_b: int, neither: int) -> tuple[float, tuple[float, float]]:
    """Return the difference B − A of two paired proportions with its 95 % interval.

    Newcombe's square-and-add interval for paired data (Statistics in Medicine 17, 1998, p. 2635, method 10):
    Wilson's limits of both proportions, joined with their correlation φ, which is corrected for continuity
    where it is positive.

    Args:
        both: Pairs in which A and B succeeded.
        only_a: Pairs in which only A did.
        only_b: Pairs in which only B did.
        neither: Pairs in which neither did.

    Returns:
        The difference in [−1, 1], and its lower and upper limit.

    Raises:
        ValueError: There are no pairs, or a count is negative.
    """
    counts = (both, only_a, only_b, neither)
    n = sum(counts)
    if n == 0 or min(counts) < 0:
        raise ValueError(f"paired_difference needs counts ≥ 0 of at least one pair; got {counts}.")
    rate_a, rate_b = (both + only_a) / n, (both + only_b) / n
    low_a, high_a = wilson(both + only_a, n)
    low_b, high_b = wilson(both + only_b, n)
    products = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    covariance = both * neither - only_a * only_b
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    phi = covariance / math.sqrt(products) if products else 0.0
    difference = rate_b - rate_a

    def distance(b: float, a: float) -> float:
        return math.sqrt(max(0.0, b * b - 2 * phi * b * a + a * a))

    below = distance(rate_b - low_b, high_a - rate_a)
    above = distance(high_b - rate_b, rate_a - low_a)
    return difference, (max(-1.0, difference - below), min(1.0, difference + above))


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Return the two-sided p value of McNemar's exact test, that A and B are as often alone in success.

    Raises:
        ValueError: A count is negative.
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"mcnemar_exact needs counts ≥ 0; got {only_a} and {only_b}.")
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_b, only_a + only_b).pvalue)
