"""Boxes against plain loops and linear programming."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial.transform import Rotation

from bridge.libero.experts.geometry import Boxes, overlap, top_within, upright


def random_boxes(rng, n, spread=0.3):
    return Boxes(
        rng.uniform(-spread, spread, (n, 3)),
        Rotation.random(n, rng=rng).as_matrix(),
        rng.uniform(0.01, 0.2, (n, 3)),
    )


def faces(boxes, index):
    """A box as A x ≤ b."""
    axes = boxes.rotations[index].T
    middle = axes @ boxes.centers[index]
    half = boxes.half_sizes[index]
    return np.vstack([axes, -axes]), np.concatenate([middle + half, half - middle])


def share_a_point(a, i, b, j):
    """By linear programming: how deep a point may lie in both boxes at once, metres."""
    (A, limits), (B, others) = faces(a, i), faces(b, j)
    rows = np.hstack([np.vstack([A, B]), np.ones((12, 1))])
    found = linprog(
        [0, 0, 0, -1], A_ub=rows, b_ub=np.concatenate([limits, others]), bounds=[(None, None)] * 4
    )
    assert found.status == 0
    return found.x[3]


def test_boxes_overlap_where_a_point_lies_in_both():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 20), random_boxes(rng, 25)
    found = overlap(a, b)
    depths = np.array([[share_a_point(a, i, b, j) for j in range(25)] for i in range(20)])
    clear = np.abs(depths) > 1e-9
    np.testing.assert_array_equal(found[clear], depths[clear] > 0)
    assert 0.2 < found.mean() < 0.8  # both answers occur


@pytest.mark.parametrize(("gap", "meet"), [(-1e-6, True), (1e-6, False)])
def test_boxes_with_parallel_axes_meet_at_their_faces(gap, meet):
    one = upright((0, 0, 0), (1, 1, 1))
    other = upright((1 + gap, 0.2, 0.2), (2, 0.8, 0.8))
    assert overlap(one, other)[0, 0] == meet


def test_nothing_overlaps_nothing():
    assert overlap(Boxes.concatenate([]), upright((0, 0, 0), (1, 1, 1))).shape == (0, 1)


def test_corners_points_and_bounds_are_those_of_the_boxes():
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 3)
    corners = [
        boxes.centers[i] + boxes.rotations[i] @ (boxes.half_sizes[i] * signs)
        for i in range(3)
        for signs in itertools.product((-1, 1), repeat=3)
    ]
    np.testing.assert_allclose(boxes.corners(), corners, atol=1e-12)
    low, high = boxes.bounds()
    np.testing.assert_allclose((low, high), (np.min(corners, 0), np.max(corners, 0)))
    spacing = 0.03
    points = boxes.points(spacing)
    inside = np.stack([(points @ A.T <= b + 1e-9).all(1) for A, b in (faces(boxes, i) for i in range(3))])
    assert inside.any(0).all()
    for index in range(3):  # wherever one looks in a box, a point is near
        here = boxes.centers[index] + boxes.rotations[index] @ (
            boxes.half_sizes[index] * rng.uniform(-1, 1, 3)
        )
        assert np.linalg.norm(points - here, axis=1).min() <= spacing / 2 * np.sqrt(3)


def test_an_upright_box_is_turned_about_its_frames_origin():
    box = upright((0.1, -0.01, 0.0), (0.3, 0.01, 0.2), angle=np.pi / 2, at=(1.0, 2.0, 3.0))
    low, high = box.bounds()
    np.testing.assert_allclose(low, (0.99, 2.1, 3.0))
    np.testing.assert_allclose(high, (1.01, 2.3, 3.2))


def test_the_top_is_that_of_the_highest_box_in_the_column():
    column = upright((-0.1, -0.1, -2), (0.1, 0.1, 2))
    boxes = upright([(0.05, 0, 0), (0.2, 0, 0)], [(0.15, 0.1, 0.3), (0.3, 0.1, 0.9)])
    assert top_within(column, boxes, ground=0.1) == pytest.approx(0.3)
    assert top_within(column, boxes, ground=0.5) == pytest.approx(0.5)
    assert top_within(upright((5, 5, 0), (6, 6, 1)), boxes, ground=0.1) == 0.1
