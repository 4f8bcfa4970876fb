"""Many differences in one table: which of them are more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEVEL = 0.05


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (S. Holm, Scandinavian Journal of Statistics 1979).

    Where those below 0.05 are called differences, the probability that any of these is false is at most 0.05,
    however the p values depend on each other.
    """
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = so_far
    return adjusted


def adjusted(rows: Sequence[Mapping[str, Any]], p: str = "p") -> list[dict[str, Any]]:
    """Return rows with ``p_holm``: the p value that has this name, adjusted for the number of rows."""
    return [{**row, "p_holm": one} for row, one in zip(rows, holm([row[p] for row in rows]))]


def verdict(tasks: Sequence[Mapping[str, Any]]) -> str:
    """Say of how many tasks the ``difference`` is more than chance, in a sentence."""
    found = [task["difference"] for task in tasks if task["p_holm"] < LEVEL]
    better, worse = sum(one > 0 for one in found), sum(one < 0 for one in found)
    return (
        f"After Holm's correction, {better} of {len(tasks)} tasks are better and {worse} worse (p < {LEVEL})."
    )
