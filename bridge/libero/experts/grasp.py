"""How to take hold of a thing: the fingers close across all of it, or, where it is hollow, about its wall."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bridge.libero.experts.geometry import Boxes, overlap, upright

# The Panda's hand, in metres in the frame of the point between the finger tips: x along the line on which the
# fingers close, z up. tests/libero/experts compares it with
# the simulator's.
OPENING = 0.076
"""Between the open fingers."""
FINGER = ((OPENING / 2, -0.011, -0.009), (0.065, 0.011, 0.05))
"""The open finger on the side of +x: least and greatest coordinates."""
PALM = ((-0.105, -0.034, 0.037), (0.105, 0.034, 0.14))
PAD = (0.008, 0.008)
"""What the fingers hold with: half its width along y, and half its height."""

_NUM_ANGLES = 36
_SPACING = 0.004  # m, of the points that stand for a thing
_HOLLOW = 0.02  # m between points that are one behind the other: a finger's room
_SLACK = 0.006  # m by which the opening must exceed what is held
_AIR = 0.003  # m beside the hand
_DEPTHS = (0.035, 0.03, 0.025, 0.02, 0.015, 0.01)
"""m below a thing's top at which it may be held; the palm forbids more."""
_LOWEST = 0.02  # m above a thing's bottom: the finger tips must not meet what it stands on
_TURN = 0.01  # m of width that a radian's turn of the hand is worth
_SHALLOW = 1.0  # m of width that a metre less of depth is worth
_TOO_WIDE = 10.0  # as much as a metre too wide costs


@dataclass(frozen=True)
class Grasp:
    """Where the hand is when it closes."""

    position: np.ndarray
    """Of the point between the finger tips, [3], metres."""
    angle: float
    """Of the line on which the fingers close, in the horizontal plane, radians."""
    width: float
    """Of what is between the fingers, metres."""


def plan_grasp(thing: Boxes, others: Boxes, closing_angle: float) -> Grasp:
    """Choose a grasp from above: narrow, deep, with little turning, and with room for the open hand.

    Where nothing has room, the best of those that have none: the attempt may fail.

    Args:
        thing: To be held.
        others: What the hand must not touch.
        closing_angle: The hand's present one, radians.
    """
    low, high = thing.bounds()
    points = thing.points(_SPACING)
    lowest = low[2] + min(_LOWEST, (high[2] - low[2]) / 2)
    heights = sorted({max(high[2] - depth, lowest) for depth in _DEPTHS})

    def cost(grasp: Grasp) -> float:
        too_wide = max(0.0, grasp.width + _SLACK - OPENING)
        turn = abs(wrapped(grasp.angle - closing_angle))
        shallow = grasp.position[2] - heights[0]
        return grasp.width + _TOO_WIDE * too_wide + _TURN * turn + _SHALLOW * shallow

    angles = np.arange(_NUM_ANGLES) * math.pi / _NUM_ANGLES
    grasps = [grasp for height in heights for angle in angles for grasp in held(points, angle, height)]
    grasps.sort(key=cost)
    surroundings = Boxes.concatenate([thing, others])
    return next((grasp for grasp in grasps if not overlap(open_hand(grasp), surroundings).any()), grasps[0])


def held(points: np.ndarray, angle: float, height: float) -> list[Grasp]:
    """Return a grasp of each part of a thing that stands by itself on the fingers' line.

    Args:
        points: Of the thing, [M, 3].
        angle: Of the line, radians.
        height: Of the grasp, metres.
    """
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    level = points[np.abs(points[:, 2] - height) <= PAD[1], :2]
    if not len(level):
        return []
    aside = level @ across
    middle = (aside.min() + aside.max()) / 2
    line = np.sort(level[np.abs(aside - middle) <= PAD[0]] @ along)
    parts = np.split(line, np.flatnonzero(np.diff(line) > _HOLLOW) + 1)
    return [
        Grasp(
            np.append((part[0] + part[-1]) / 2 * along + middle * across, height),
            angle,
            float(part[-1] - part[0]),
        )
        for part in parts
        if len(part)
    ]


def open_hand(grasp: Grasp) -> Boxes:
    """Return the boxes that the open hand comes down through, with some air on the sides."""
    (inner, back, tip), (outer, front, _) = FINGER
    spans = [
        ((inner - _AIR, back - _AIR, tip), (outer + _AIR, front + _AIR, PALM[1][2])),
        ((-outer - _AIR, back - _AIR, tip), (_AIR - inner, front + _AIR, PALM[1][2])),
        PALM,
    ]
    return Boxes.concatenate([upright(*span, angle=grasp.angle, at=grasp.position) for span in spans])


def wrapped(angle: float, period: float = math.pi) -> float:
    """Return an angle less whole periods, the nearest to 0. A hand looks the same after half a turn."""
    return (angle + period / 2) % period - period / 2
