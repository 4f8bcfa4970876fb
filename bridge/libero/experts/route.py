"""How high a thing is carried to its place, and how low it is let go there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridge.libero.experts.geometry import Boxes, top_within, upright

_CLEAR = 0.035  # m between a carried thing and what it passes over
_BESIDE = 0.01  # m on each side of a carried thing that count as its way
_INTO = 0.03  # m above a place's rim at which the fingers stop: what hangs lower is inside
_HIGH = 2.0  # m, above everything


@dataclass(frozen=True)
class Route:
    """Heights in metres of the point between the finger tips."""

    carried: float
    released: float


def plan_route(thing: Boxes, others: Boxes, owner: Boxes, end: np.ndarray, held_at: float) -> Route:
    """Choose the heights: over all that lies on the straight way, and down to the place's rim.

    Args:
        thing: To be carried, where it lies.
        others: All that it may meet.
        owner: Of the place.
        end: The place's middle, [3], metres.
        held_at: Height of the grasp, metres.
    """
    low, high = thing.bounds()
    radius = float((high - low)[:2].max()) / 2
    below = held_at - float(low[2])
    column = upright((*(end[:2] - radius), -_HIGH), (*(end[:2] + radius), _HIGH))
    rim = top_within(column, owner, ground=float(end[2]))
    start = (low + high)[:2] / 2
    way, side = end[:2] - start, radius + _BESIDE
    corridor = upright(
        (-side, -side, float(low[2])),
        (float(np.hypot(*way)) + side, side, _HIGH),
        angle=float(np.arctan2(way[1], way[0])),
        at=np.append(start, 0.0),
    )
    highest = top_within(corridor, others, ground=rim)
    return Route(carried=highest + below + _CLEAR, released=rim + min(below, _INTO))
