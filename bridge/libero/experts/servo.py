"""From where the hand is to where it is to go: a proportional servo in LIBERO's relative control."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridge.libero.experts.grasp import wrapped
from bridge.libero.experts.scene import Hand

_GAIN = 18.0
"""Commands (1 is 5 cm) for each metre: all but a tenth of the way in a step, as the arm lags behind."""
_TURN_GAIN = 3.0
"""Commands (1 is half a radian) for each radian."""
_FASTEST_TURN = 0.5
_DOWN = np.array([0.0, 0.0, -1.0])


@dataclass(frozen=True)
class Pose:
    """Where the hand is to be, pointing down."""

    position: np.ndarray
    """[3], metres."""
    angle: float
    """Of the line on which the fingers close, radians; half a turn makes no difference."""


def command(hand: Hand, goal: Pose, speed: float) -> np.ndarray:
    """Return the next six numbers of relative control, [6] in [-1, 1]: how far to move, and to turn.

    Args:
        hand: Where it is.
        goal: Where it is to be.
        speed: Of the fastest axis, at most.
    """
    move = _GAIN * (goal.position - hand.position)
    move *= min(1.0, speed / max(np.abs(move).max(), 1e-9))
    tilt = np.cross(hand.approach, _DOWN)
    yaw = np.array([0.0, 0.0, wrapped(goal.angle - hand.closing_angle)])
    turn = _TURN_GAIN * (tilt + yaw)
    return np.concatenate([move, turn.clip(-_FASTEST_TURN, _FASTEST_TURN)])


def distance(hand: Hand, goal: Pose) -> tuple[float, float, float]:
    """Return how far it is: aside and in height, metres, and about the vertical, radians."""
    way = goal.position - hand.position
    turn = wrapped(goal.angle - hand.closing_angle)
    return float(np.hypot(way[0], way[1])), float(abs(way[2])), float(abs(turn))
