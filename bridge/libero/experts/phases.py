"""One thing taken to its place, phase by phase: where the hand goes in each, and when the next begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridge.libero.experts.grasp import plan_grasp
from bridge.libero.experts.route import plan_route
from bridge.libero.experts.scene import Hand, Scene
from bridge.libero.experts.servo import Pose, distance

_CLEAR = 0.07  # m between the finger tips and a thing that the hand comes over
_FUNNEL = (0.004, 8.0)
"""The hand comes down no farther than a funnel about the goal lets it: its radius in m, and its slope."""
_LOST = 0.08  # m that a thing has moved against the hand when it is not held any more; a bowl may swing
_AWAY = 0.1  # m that the hand goes up by when it has let go


@dataclass(frozen=True)
class Phase:
    """A part of the way. It ends when the hand is near enough, or when its patience is over."""

    name: str
    closed: bool
    """Of the gripper."""
    patience: int
    """Control steps."""
    speed: float = 1.0
    """At most, of the fastest command."""
    aside: float = np.inf
    """m in the horizontal plane that are near enough."""
    above: float = np.inf
    """m in height."""
    turned: float = np.inf
    """Radians about the vertical."""
    waits: bool = False
    """For the fingers, and for all of its patience; the hand stays where it is."""
    carries: bool = False


HOVER = Phase("hover", closed=False, patience=60, aside=0.008, above=0.04, turned=0.08)
DESCEND = Phase("descend", closed=False, patience=40, speed=0.8, aside=0.01, above=0.008)
GRIP = Phase("grip", closed=True, patience=10, waits=True)
LIFT = Phase("lift", closed=True, patience=40, speed=0.9, above=0.03, carries=True)
CARRY = Phase("carry", closed=True, patience=80, speed=0.9, aside=0.015, carries=True)
LOWER = Phase("lower", closed=True, patience=60, speed=0.7, above=0.02, carries=True)
RELEASE = Phase("release", closed=False, patience=8, waits=True)
RETREAT = Phase("retreat", closed=False, patience=15, above=0.03)
PHASES = (HOVER, DESCEND, GRIP, LIFT, CARRY, LOWER, RELEASE, RETREAT)
"""In their order."""


class PickAndPlace:
    """Takes a thing to its place. What it loses on the way it fetches again.

    Args:
        scene: As it is when this thing's turn begins.
        thing: To be taken.
        place: Where it belongs.
        aim_offset: How far beside the thing the hand is aimed, [2], metres along the world's x and y.
    """

    def __init__(self, scene: Scene, thing: str, place: str, aim_offset: np.ndarray) -> None:
        self._scene, self._thing, self._place = scene, thing, place
        self._aim_offset = aim_offset
        self._plan(scene.hand())

    @property
    def done(self) -> bool:
        """The thing was let go, and the hand is away from it."""
        return self.phase is RETREAT and self._ended(self._scene.hand())

    def step(self, hand: Hand) -> Pose:
        """Go on by one control step; returns where the hand is to go in it."""
        if self._lost(hand):
            self._plan(hand)
        elif self.phase is not RETREAT and self._ended(hand):
            self._enter(PHASES[PHASES.index(self.phase) + 1], hand)
        self._steps += 1
        return self._goal(hand)

    def _plan(self, hand: Hand) -> None:
        """Begin with the thing where it lies now."""
        thing, others = self._scene.boxes(self._thing), self._scene.others(self._thing)
        owner, end = self._scene.boxes(self._scene.owner(self._place)), self._scene.center(self._place)
        start = self._scene.position(self._thing)
        self._grasp = plan_grasp(thing, others, hand, way=(end - start)[:2])
        self._route = plan_route(thing, others, owner, end, float(self._grasp.position[2]))
        self._over = float(thing.bounds()[1][2]) + _CLEAR
        self._beside = (self._grasp.position - start)[:2]
        self._enter(HOVER, hand)

    def _enter(self, phase: Phase, hand: Hand) -> None:
        self.phase, self._steps = phase, 0
        self._stays = hand.position
        if phase is LIFT:
            self._hangs = self._scene.position(self._thing) - hand.position

    def _ended(self, hand: Hand) -> bool:
        phase = self.phase
        aside, above, turned = distance(hand, self._goal(hand))
        near = aside < phase.aside and above < phase.above and turned < phase.turned
        return self._steps >= phase.patience or (near and not phase.waits)

    def _lost(self, hand: Hand) -> bool:
        if self.phase not in (LIFT, CARRY):
            return False
        hangs = self._scene.position(self._thing) - hand.position
        return bool(np.linalg.norm(hangs - self._hangs) > _LOST)

    def _goal(self, hand: Hand) -> Pose:
        """Where the hand is to go in the present phase."""
        thing, end = self._scene.position(self._thing), self._scene.center(self._place)
        held = thing[:2] + self._beside + self._aim_offset
        carried = hand.position[:2] + end[:2] - thing[:2]  # which takes the thing, as it hangs, to the middle
        beside, (radius, slope) = float(np.linalg.norm(held - hand.position[:2])), _FUNNEL
        goals = {
            HOVER: (*held, self._over),
            DESCEND: (*held, self._grasp.position[2] + slope * max(0.0, beside - radius)),
            LIFT: (*self._stays[:2], self._route.carried),
            CARRY: (*carried, self._route.carried),
            LOWER: (*carried, self._route.released),
            RETREAT: (*self._stays[:2], self._stays[2] + _AWAY),
        }
        return Pose(np.array(goals.get(self.phase, self._stays)), self._grasp.angle)
