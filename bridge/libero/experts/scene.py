"""What an expert may look at: where things are in LIBERO's simulator, what the task asks for, and the hand.

This is the simulator's ground truth, which a policy does not see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bridge.libero.experts.geometry import Boxes

_PLACING = ("in", "on")
_FINGER = "gripper0_finger_joint1"


@dataclass(frozen=True)
class Hand:
    """The gripper's pose."""

    position: np.ndarray
    """Of the point between the finger tips, [3], metres; the one that the controller moves."""
    approach: np.ndarray
    """Unit vector from the palm to the finger tips, [3]."""
    closing_angle: float
    """Of the line along which the fingers close, in the horizontal plane, radians."""
    base: np.ndarray
    """Where the arm stands, in the horizontal plane, [2], metres."""


class Scene:
    """A task's scene, as it is now.

    Args:
        simulator: LeRobot's LIBERO environment, reset.
    """

    def __init__(self, simulator: Any) -> None:
        self._domain: Any = simulator._env.env

    @cached_property
    def goals(self) -> list[tuple[str, str]]:
        """What is to be put where: names of a thing and of a thing or region, for each goal of the task.

        Raises:
            ValueError: A goal asks for something else than to put something somewhere.
        """
        goals = [tuple(goal) for goal in self._domain.parsed_problem["goal_state"]]
        if other := [goal for goal in goals if goal[0] not in _PLACING]:
            raise ValueError(f"this expert puts things in and on others; the task asks for {other[0]}.")
        return [(thing, place) for _, thing, place in goals]

    def position(self, thing: str) -> np.ndarray:
        """Return where a thing's origin is, [3], metres."""
        return self._domain.sim.data.body_xpos[self._domain.obj_body_id[thing]].copy()

    def boxes(self, thing: str) -> Boxes:
        """Return the boxes around the shapes that a thing collides with."""
        return self._boxes(self._geoms[thing])

    def others(self, *things: str) -> Boxes:
        """Return the boxes of all things but these; the table or floor and the robot are no things."""
        return Boxes.concatenate([self.boxes(name) for name in self._geoms if name not in things])

    def owner(self, place: str) -> str:
        """Return the thing that a place belongs to: itself, or the one whose region it is."""
        return place if place in self._geoms else self._domain.object_states_dict[place].parent_name

    def center(self, place: str) -> np.ndarray:
        """Return the middle of a place as LIBERO's goals do, [3]: a thing's origin, a region's site."""
        if place in self._geoms:
            return self.position(place)
        return self._domain.sim.data.get_site_xpos(place).copy()

    def hand(self) -> Hand:
        """Return the gripper's present pose."""
        robot, sim = self._domain.robots[0], self._domain.sim
        controller = robot.controller
        slide = sim.data.xaxis[sim.model.joint_name2id(_FINGER)]
        return Hand(
            np.array(controller.ee_pos),
            np.array(controller.ee_ori_mat)[:, 2],
            math.atan2(slide[1], slide[0]),
            np.array(robot.base_pos[:2]),
        )

    @cached_property
    def _geoms(self) -> dict[str, np.ndarray]:
        """Name of each thing → ids of the shapes that it collides with."""
        model = self._domain.sim.model
        things = [*self._domain.objects_dict, *self._domain.fixtures_dict]
        roots = {self._domain.obj_body_id[name]: name for name in things}
        found: dict[str, list[int]] = {name: [] for name in things}
        for geom in np.flatnonzero(model.geom_contype | model.geom_conaffinity):
            body = model.geom_bodyid[geom]
            while body > 0 and body not in roots:
                body = model.body_parentid[body]
            if body in roots:
                found[roots[body]].append(int(geom))
        return {name: np.array(geoms, int) for name, geoms in found.items()}

    def _boxes(self, geoms: np.ndarray) -> Boxes:
        """MuJoCo's own box around each shape: centre and half sizes in the shape's frame."""
        data, around = self._domain.sim.data, self._domain.sim.model.geom_aabb[geoms]
        rotations = data.geom_xmat[geoms].reshape(-1, 3, 3)
        centers = data.geom_xpos[geoms] + np.einsum("nij,nj->ni", rotations, around[:, :3])
        return Boxes(centers, rotations, around[:, 3:])
