"""Where the hand takes hold, for things whose best grasp is plain to see."""

import math

import numpy as np
import pytest

from bridge.libero.experts.geometry import Boxes, upright
from bridge.libero.experts.grasp import FINGER, OPENING, PAD, PALM, held, plan_grasp, touches, wrapped
from bridge.libero.experts.scene import Hand

NOTHING = Boxes.concatenate([])
DOWN = np.array([0.0, 0.0, -1.0])
STAYS = np.zeros(2)


def hand(angle=0.0, base=(-0.3, 0.0)):
    return Hand(np.array([0.0, 0.0, 0.3]), DOWN, angle, np.array(base))


def box(x, y, z, at=(0.0, 0.0), angle=0.0):
    """A box that stands on the ground: its three sizes, and the middle of its bottom."""
    return upright((-x / 2, -y / 2, 0), (x / 2, y / 2, z), angle, (*at, 0.0))


def bowl(radius=0.05, height=0.05, sides=24, at=(0.0, 0.0)):
    """A thin upright wall all around."""
    half = radius * math.tan(math.pi / sides)
    return Boxes.concatenate(
        [
            upright((radius - 0.002, -half, 0), (radius, half, height), 2 * math.pi * k / sides, (*at, 0.0))
            for k in range(sides)
        ]
    )


@pytest.mark.parametrize("angle", [0.0, 0.35, 1.2])
def test_a_box_is_taken_across_its_narrow_side_in_the_middle(angle):
    grasp = plan_grasp(box(0.04, 0.12, 0.1, at=(0.1, 0.2), angle=angle), NOTHING, hand(), STAYS)
    assert abs(wrapped(grasp.angle - angle)) <= math.radians(
        5
    )  # of two angles that are tried, the one that turns less
    np.testing.assert_allclose(grasp.position[:2], (0.1, 0.2), atol=0.002)
    assert grasp.width == pytest.approx(0.04, abs=0.003)
    assert 0.1 - grasp.position[2] == pytest.approx(0.028)  # as deep as the palm lets it


def test_a_round_can_is_taken_without_turning_the_hand():
    can = Boxes.concatenate([box(0.05, 0.02, 0.08, angle=k * math.pi / 12) for k in range(12)])
    for angle in (0.3, -1.0):
        assert abs(wrapped(plan_grasp(can, NOTHING, hand(angle), STAYS).angle - angle)) < 0.1


def test_a_flat_thing_is_taken_at_half_its_height_at_least():
    grasp = plan_grasp(box(0.05, 0.09, 0.02), NOTHING, hand(), STAYS)
    assert grasp.position[2] == pytest.approx(0.01)


def test_a_bowl_that_is_wider_than_the_hand_is_taken_by_its_wall():
    grasp = plan_grasp(bowl(at=(0.1, 0.0)), NOTHING, hand(), STAYS)
    out = grasp.position[:2] - (0.1, 0.0)
    assert np.linalg.norm(out) == pytest.approx(0.049, abs=0.004)
    assert abs(wrapped(grasp.angle - math.atan2(out[1], out[0]))) < 0.1  # one finger in, one out
    assert grasp.width < 0.006


def test_a_bowl_at_the_end_of_the_arm_is_taken_on_the_near_side():
    far = hand(angle=0.0, base=(-0.65, 0.0))
    grasp = plan_grasp(bowl(at=(0.1, 0.0)), NOTHING, far, STAYS)
    assert grasp.position[0] < 0.08
    back = plan_grasp(bowl(at=(0.0, 0.0)), NOTHING, far, np.array([0.1, 0.0]))  # it is carried there
    assert back.position[0] < -0.02


def test_a_wall_beside_a_bowl_leaves_the_other_sides():
    wall = upright((0.06, -0.5, 0), (0.07, 0.5, 0.2))
    grasp = plan_grasp(bowl(), wall, hand(), STAYS)
    assert not touches([grasp], bowl(), wall, air=0.004).any()
    across = np.array([[math.cos(grasp.angle), math.sin(grasp.angle)]])
    reach = grasp.position[:2] + np.array([[-1], [1]]) * FINGER[1][0] * across
    assert reach[:, 0].max() < 0.06


def test_nothing_else_is_between_the_fingers():
    """The wall of a drawer between the bowl and the outer finger would be pinched with it."""
    thin = upright((0.055, -0.5, 0), (0.058, 0.5, 0.2))
    (around,) = [g for g in held(bowl().points(0.004), 0.0, 0.03) if g.position[0] > 0 and g.shift == 0]
    assert not touches([around], bowl(), NOTHING, air=0.0).any()
    assert touches([around], bowl(), thin, air=0.0).all()


def test_where_there_is_no_room_a_grasp_is_tried_all_the_same():
    walls = Boxes.concatenate([box(0.2, 0.01, 0.3, at=(0.0, y)) for y in (-0.03, 0.03)])
    walls = Boxes.concatenate([walls, *(box(0.01, 0.2, 0.3, at=(x, 0.0)) for x in (-0.03, 0.03))])
    grasp = plan_grasp(box(0.04, 0.04, 0.05), walls, hand(), STAYS)
    np.testing.assert_allclose(grasp.position[:2], 0, atol=0.01)


def test_what_is_held_is_measured_between_the_pads():
    """Against points on both sides of a line, found one by one."""
    rng = np.random.default_rng(3)
    points = rng.uniform((-0.03, -0.02, 0.0), (0.03, 0.02, 0.1), (4000, 3))
    angle, height = 0.4, 0.05
    along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
    level = [p for p in points if abs(p[2] - height) <= PAD[1]]
    sides = [p[0] * across[0] + p[1] * across[1] for p in level]
    middle = (min(sides) + max(sides)) / 2
    line = [
        p[0] * along[0] + p[1] * along[1]
        for p, side in zip(level, sides, strict=True)
        if abs(side - middle) <= PAD[0]
    ]
    grasps = held(points, angle, height)
    assert {round(g.width, 9) for g in grasps} == {round(max(line) - min(line), 9)}
    (centred,) = [g for g in grasps if g.shift == 0]
    expected = (min(line) + max(line)) / 2 * np.array(along) + middle * np.array(across)
    np.testing.assert_allclose(centred.position, [*expected, height], atol=1e-12)


def test_the_hand_is_the_simulators(spatial):
    """Vertices of the collision meshes, in the frame of the point between the finger tips."""
    spatial.reset(seed=0, options={"task": 0, "init_state": 0})  # the hand open, whoever had it before
    domain = spatial.simulator._env.env
    model, data, controller = domain.sim.model, domain.sim.data, domain.robots[0].controller
    found = {}
    for part in ("hand", "finger1", "finger2"):
        geom = model.geom_name2id(f"gripper0_{part}_collision")
        mesh = model.geom_dataid[geom]
        first = model.mesh_vertadr[mesh]
        vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
        world = vertices @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
        inside = (world - controller.ee_pos) @ np.array(controller.ee_ori_mat)
        inside = inside * (1, 1, -1)  # the hand's own z points down
        found[part] = inside.min(0), inside.max(0)
    inner = min(found["finger2"][0][0], -found["finger1"][1][0])
    outer = max(found["finger2"][1][0], -found["finger1"][0][0])
    assert inner == pytest.approx(OPENING / 2, abs=0.001)
    assert outer == pytest.approx(FINGER[1][0], abs=0.001)
    for finger in ("finger1", "finger2"):
        np.testing.assert_allclose(found[finger][0][1:], FINGER[0][1:], atol=0.0005)
        np.testing.assert_allclose(found[finger][1][1:], FINGER[1][1:], atol=0.0005)
    assert (found["hand"][0] >= np.array(PALM[0]) - 0.0005).all()
    assert (found["hand"][1] <= np.array(PALM[1]) + 0.0005).all()
    assert found["hand"][0][2] == pytest.approx(PALM[0][2], abs=0.0005)
