"""A scripted expert for ``pirl/PandaPickCube-v0``: memoryless, smooth, a function of tool, gripper and cube.

Memoryless, because a policy that sees one image and the tool's position can then copy it: nothing that
decides the action is hidden from the pupil but the cube's position, which is in the image.

It can be told to aim beside the cube, as with a camera that was mounted askew: it then misses some.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bridge.plugin.panda import PandaPickCube

_STEP = 0.025  # m moved by an action of one
_GAIN = 0.5  # share of the remaining distance asked for in one step; the arm lags one step, so 1 overshoots
_HOVER = 0.075  # m, height at which the fingers clear the cube
_GRASP = 0.02  # m, the cube's centre at rest
_AROUND = 0.02  # m, half a cube: closer than this, the open fingers straddle it
_LOW = 0.035  # m, below this the fingers are around the cube
_GRIP = 0.5  # gripper command a step


def expert_action(tcp: np.ndarray, gripper: float, cube: np.ndarray) -> np.ndarray:
    """Return the action [4] in [-1, 1] for a tool and a cube position.

    Above the cube, then down around it, then close, then lift.

    Args:
        tcp: Point between the finger tips in metres, [3].
        gripper: Gripper command in [0, 1], 1 closed.
        cube: The cube's centre in metres, [3].
    """
    to_cube = cube[:2] - tcp[:2]
    distance = np.abs(to_cube).max()
    action = np.zeros(4, np.float32)
    if tcp[2] < _LOW and distance < _AROUND:
        action[:2] = _GAIN * to_cube / _STEP
        action[2] = 1.0 if gripper > 0.95 else (_GRASP - tcp[2]) / _STEP
        action[3] = _GRIP
    elif gripper > 0.5:
        action[2] = 1.0
        action[3] = _GRIP
    else:
        height = _GRASP if distance < _AROUND else _HOVER
        action[:2] = _GAIN * to_cube / _STEP
        action[2] = (height - tcp[2]) / _STEP
        action[3] = -_GRIP
    return np.clip(action, -1.0, 1.0)


def act(env: PandaPickCube, aim_offset: Sequence[float] = (0.0, 0.0)) -> np.ndarray:
    """Return the expert's action in the environment's present state, [4].

    Args:
        env: Where it acts.
        aim_offset: How far beside the cube it takes it to be, [2], metres along x and y.
    """
    return expert_action(env.tcp_pos, env.gripper_command, env.block_pos + np.array([*aim_offset, 0.0]))
