"""How to take hold of a thing: the fingers close across all of it, or, where it is hollow, about its wall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridge.libero.experts.geometry import Boxes, overlap, upright
from bridge.libero.experts.scene import Hand

# The Panda's hand, in metres in the frame of the point between the finger tips: x along the line on which the
# fingers close, z up. tests/libero/experts compares it with
# the simulator's.
OPENING = 0.077
"""Between the open fingers."""
FINGER = ((OPENING / 2, -0.0105, -0.0095), (0.0655, 0.0105, 0.0445))
"""The open finger on the side of +x: least and greatest coordinates."""
PALM = ((-0.105, -0.032, 0.031), (0.105, 0.032, 0.123))
PAD = (0.008, 0.008)
"""What the fingers hold with: half its width along y, and half its height."""

_NUM_ANGLES = 36
_SPACING = 0.004  # m, of the points that stand for a thing
_HOLLOW = 0.02  # m between points that are one behind the other: a finger's room
_SLACK = 0.006  # m by which the opening must exceed what is held
_ABOVE = 0.2  # m, of the way down to a grasp
_AIR = {0.01: 0.03, 0.004: 10.0}
"""m of room beside the fingers → m of width that it costs to have less."""
_DEPTHS = (0.028, 0.024, 0.02, 0.016, 0.012)
"""m below a thing's top at which it may be held; the palm forbids more."""
_LOWEST = 0.02  # m above a thing's bottom: the finger tips must not meet what it stands on
_SHIFTS = (0.0, 0.01, -0.01, 0.02, -0.02)
"""m that what is held may be out of the middle between the fingers; they push it there as they close."""
_SHIFT = 0.5  # m of width that a metre out of the middle is worth
_TURN = 0.01  # m of width that a radian's turn of the hand is worth
_SHALLOW = 1.0  # m of width that a metre less of depth is worth
_REACH = 0.7  # m from where the arm stands to the hand: farther off, pointing down, it hardly moves freely
_FAR = 1.0  # m of width that a metre out of reach is worth
_TOO_WIDE = 10.0  # as much as a metre too wide costs
_BLOCK = 48  # grasps that are tried at a time, the cheapest first


@dataclass(frozen=True)
class Grasp:
    """Where the hand is when it closes."""

    position: np.ndarray
    """Of the point between the finger tips, [3], metres."""
    angle: float
    """Of the line on which the fingers close, in the horizontal plane, radians."""
    width: float
    """Of what is between the fingers, metres."""
    shift: float
    """How far the middle between the fingers is from the middle of what they hold, along the line, metres."""


def plan_grasp(thing: Boxes, others: Boxes, hand: Hand, way: np.ndarray) -> Grasp:
    """Choose a grasp from above: narrow, deep, near, with little turning, and with room for the open hand.

    Where nothing has room, the best of those that have none: the attempt may fail.

    Args:
        thing: To be held.
        others: What the hand must not touch.
        hand: As it is now.
        way: That the thing is then carried, [2], metres.
    """
    low, high = thing.bounds()
    points = thing.points(_SPACING)
    lowest = low[2] + min(_LOWEST, (high[2] - low[2]) / 2)
    heights = sorted({max(high[2] - depth, lowest) for depth in _DEPTHS})

    def cost(grasp: Grasp) -> float:
        too_wide = max(0.0, grasp.width + 2 * abs(grasp.shift) + _SLACK - OPENING)
        turn = abs(wrapped(grasp.angle - hand.closing_angle))
        shallow = grasp.position[2] - heights[0]
        begin = grasp.position[:2] - hand.base
        far = max(0.0, *(float(np.linalg.norm(at)) - _REACH for at in (begin, begin + way)))
        return (
            grasp.width
            + _TOO_WIDE * too_wide
            + _SHIFT * abs(grasp.shift)
            + _TURN * turn
            + _SHALLOW * shallow
            + _FAR * far
        )

    angles = np.arange(_NUM_ANGLES) * math.pi / _NUM_ANGLES
    grasps = [grasp for height in heights for angle in angles for grasp in held(points, angle, height)]
    grasps.sort(key=cost)
    best, least = grasps[0], math.inf
    for begin in range(0, len(grasps), _BLOCK):
        block = grasps[begin : begin + _BLOCK]
        costs = np.array([cost(grasp) for grasp in block])
        if costs[0] >= least:
            break
        for air, price in _AIR.items():
            costs += price * touches(block, thing, others, air)
        if costs.min() < least:
            best, least = block[int(costs.argmin())], float(costs.min())
    return best


def held(points: np.ndarray, angle: float, height: float) -> list[Grasp]:
    """Return the grasps of each part of a thing that stands by itself on the fingers' line.

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
            np.append(((part[0] + part[-1]) / 2 + shift) * along + middle * across, height),
            angle,
            float(part[-1] - part[0]),
            shift,
        )
        for part in parts
        if len(part)
        for shift in _SHIFTS
    ]


def touches(grasps: Sequence[Grasp], thing: Boxes, others: Boxes, air: float) -> np.ndarray:
    """Return which of N grasps the open hand cannot come down to without meeting something, bool [N].

    What is held may stand between the fingers, and nothing else.

    Args:
        grasps: Where the hand goes.
        thing: To be held.
        others: What the hand must not touch.
        air: That the fingers must have on their sides, metres.
    """
    (inner, back, tip), (outer, front, _) = FINGER
    low = [
        (inner - air, back - air, tip),
        (-outer - air, back - air, tip),
        PALM[0],
        (-inner, back - air, tip),
    ]
    high = [(outer + air, front + air), (air - inner, front + air), PALM[1][:2], (inner, front + air)]
    high = [(*corner, _ABOVE) for corner in high]
    hands = Boxes.concatenate([upright(low, high, grasp.angle, grasp.position) for grasp in grasps])
    meets = overlap(hands, others).any(1).reshape(-1, len(low))
    meets[:, :3] |= overlap(hands, thing).any(1).reshape(-1, len(low))[:, :3]
    return np.any(meets, axis=1)


def wrapped(angle: float, period: float = math.pi) -> float:
    """Return an angle less whole periods, the nearest to 0. A hand looks the same after half a turn."""
    return (angle + period / 2) % period - period / 2
