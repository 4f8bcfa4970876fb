"""The servo on a hand that does what it is told."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bridge.libero.experts.scene import Hand
from bridge.libero.experts.servo import Pose, command, distance

METRES, RADIANS = 0.05, 0.5  # what a command of 1 is to LIBERO


def hand(position, rotation):
    matrix = rotation.as_matrix()
    return Hand(np.array(position), matrix[:, 2], math.atan2(matrix[1, 0], matrix[0, 0]), np.zeros(2))


DOWN = Rotation.from_euler("x", math.pi)


def test_a_hand_that_obeys_arrives_upright_and_turned():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rotation = Rotation.from_rotvec(rng.normal(0, 0.2, 3)) * DOWN
        position = rng.uniform(-0.3, 0.3, 3)
        goal = Pose(rng.uniform(-0.3, 0.3, 3), rng.uniform(-math.pi, math.pi))
        for _ in range(60):
            action = command(hand(position, rotation), goal, speed=1.0)
            assert np.abs(action).max() <= 1
            position = position + METRES * action[:3]
            rotation = Rotation.from_rotvec(RADIANS * action[3:]) * rotation
        arrived = hand(position, rotation)
        np.testing.assert_allclose(arrived.position, goal.position, atol=1e-6)
        np.testing.assert_allclose(arrived.approach, (0, 0, -1), atol=1e-2)
        assert distance(arrived, goal) == pytest.approx((0, 0, 0), abs=1e-2)


def test_a_far_goal_is_approached_straight_at_the_speed_that_is_given():
    here = hand((0, 0, 0), DOWN)
    action = command(here, Pose(np.array([0.4, -0.2, 0.1]), 0.0), speed=0.7)
    np.testing.assert_allclose(action[:3], np.array([0.7, -0.35, 0.175]))


def test_distances_are_told_apart():
    here = hand((0.1, 0.2, 0.3), DOWN)
    goal = Pose(np.array([0.13, 0.24, 0.31]), here.closing_angle + math.pi + 0.2)  # half a turn is none
    assert distance(here, goal) == pytest.approx((0.05, 0.01, 0.2))
