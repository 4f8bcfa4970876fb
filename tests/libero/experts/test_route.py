"""How high a thing is carried, and how low it is let go."""

import numpy as np
import pytest

from bridge.libero.experts.geometry import Boxes, upright
from bridge.libero.experts.route import plan_route

CAN = upright((-0.03, -0.03, 0.0), (0.03, 0.03, 0.1))
HELD_AT = 0.08
BASKET = Boxes.concatenate(
    [
        upright((0.4, -0.1, 0.0), (0.6, 0.1, 0.01)),  # its floor
        *(upright((0.4, y - 0.005, 0.0), (0.6, y + 0.005, 0.15)) for y in (-0.1, 0.1)),
        *(upright((x - 0.005, -0.1, 0.0), (x + 0.005, 0.1, 0.15)) for x in (0.4, 0.6)),
    ]
)
INTO = np.array([0.5, 0.0, 0.07])


def route(*obstacles, owner=BASKET, end=INTO, thing=CAN):
    return plan_route(thing, Boxes.concatenate([owner, *obstacles]), owner, end, HELD_AT)


def test_a_thing_is_carried_over_the_rim_with_room_below_it():
    assert route().carried - HELD_AT == pytest.approx(0.15 + 0.035)  # the height of its bottom


def test_what_stands_in_the_way_is_passed_over_and_what_stands_beside_is_not():
    def tower(x, y):
        return upright((x - 0.02, y - 0.02, 0.0), (x + 0.02, y + 0.02, 0.4))

    assert route(tower(0.25, 0.03)).carried - HELD_AT == pytest.approx(0.4 + 0.035)
    assert route(tower(0.25, 0.08)).carried == route().carried
    assert route(tower(0.8, 0.0)).carried == route().carried  # behind the place


def test_the_fingers_stop_above_the_rim_and_a_low_thing_at_it():
    plate, end = upright((0.4, -0.1, 0.0), (0.6, 0.1, 0.02)), np.array([0.5, 0.0, 0.01])
    assert route(owner=plate, end=end).released == pytest.approx(0.02 + 0.03)
    flat = upright((-0.03, -0.03, 0.07), (0.03, 0.03, 0.09))  # held one centimetre above its bottom
    assert route(owner=plate, end=end, thing=flat).released == pytest.approx(0.02 + 0.01)


def test_a_rim_is_that_of_what_is_below_the_thing():
    """A cabinet's handle, to the side of the region on its top, is none."""
    cabinet = upright([(0.4, -0.1, 0), (0.62, -0.1, 0)], [(0.6, 0.1, 0.3), (0.64, 0.1, 0.5)])
    assert route(owner=cabinet, end=np.array([0.5, 0.0, 0.3])).released == pytest.approx(0.3 + 0.03)
