"""Images of a robosuite environment drawn when they are asked for, as they would have been drawn on time.

robosuite draws every camera at every control step, at the step's first substep, which costs ten times the
physics. Here that moment only records what there is to draw (MuJoCo's scene: a few microseconds), and
:meth:`Cameras.draw` turns the last recorded scene into pixels, the same ones. Recording at every step costs
nothing, so that a success inside a chunk can still be shown.
"""

# MuJoCo is a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import robosuite.macros as macros
from robosuite.utils.mjcf_utils import IMAGE_CONVENTION_MAPPING
from robosuite.utils.observables import sensor

View = dict[str, tuple[Any, mujoco.MjvScene]]
"""Camera → the compiled model, and what there is to draw of it."""
_NOT_DRAWN = np.zeros((1, 1, 3), np.uint8)


class Cameras:
    """Replaces the colour sensors of a robosuite environment, now and whenever it makes new ones.

    Args:
        env: The robosuite environment, with an off-screen renderer and no depth or segmentation images.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self._sizes: dict[str, tuple[int, int]] = {}
        self._scenes: View = {}
        env._create_camera_sensors = self._sensors
        for name, width, height in zip(env.camera_names, env.camera_widths, env.camera_heights):
            sensors, (image,) = self._sensors(name, width, height, False, None)
            # Not set_sensor, which would ask the sensor for a value first.
            env._observables[image]._sensor = sensors[0]

    def make_current(self) -> None:
        """Make this environment's OpenGL context the process's.

        robosuite neither draws nor frees in the context of the environment at hand, so that with two
        environments in a process one would draw into, or free, what belongs to the other.
        """
        self._env.sim._render_context_offscreen.gl_ctx.make_current()

    def view(self) -> View:
        """Return what the cameras have seen in the last control step, to be drawn at any time."""
        view, self._scenes = self._scenes, {}  # the next step records into new ones
        return view

    def draw(self, image: str, view: View | None = None) -> np.ndarray:
        """Draw what the camera saw when the last control step sampled it: uint8 [h, w, 3].

        Args:
            image: The observable's name, ``<camera>_image``.
            view: Of an earlier step since the scene was compiled; the last one's if not given.
        """
        name = image.removesuffix("_image")
        scenes = self._scenes if view is None else view
        width, height = self._sizes[name]
        context = self._env.sim._render_context_offscreen
        self.make_current()
        if width > context.con.offWidth or height > context.con.offHeight:
            context.update_offscreen_size(
                max(width, context.con.offWidth), max(height, context.con.offHeight)
            )
        mujoco.mjr_render(mujoco.MjrRect(0, 0, width, height), scenes[name][1], context.con)
        return context.read_pixels(width, height)[:: IMAGE_CONVENTION_MAPPING[macros.IMAGE_CONVENTION]]

    def _sensors(
        self, cam_name: str, cam_w: int, cam_h: int, cam_d: bool, cam_segs: Any, modality: str = "image"
    ) -> tuple[list[Callable[..., Any]], list[str]]:
        """Do as ``RobotEnv._create_camera_sensors``, for sensors that record."""
        if cam_d or cam_segs is not None:
            raise ValueError("Cameras records colour images, neither depth nor segmentation.")
        self._sizes[cam_name] = (cam_w, cam_h)

        @sensor(modality=modality)
        def record(_: Any) -> np.ndarray:
            self._record(cam_name)
            return _NOT_DRAWN

        return [record], [f"{cam_name}_image"]

    def _record(self, name: str) -> None:
        context = self._env.sim._render_context_offscreen
        model = context.model._model
        if name not in self._scenes or self._scenes[name][0] is not model:
            self._scenes[name] = (model, mujoco.MjvScene(model, maxgeom=context.scn.maxgeom))
        context.cam.type = mujoco.mjtCamera.mjCAMERA_FIXED
        context.cam.fixedcamid = self._env.sim.model.camera_name2id(name)
        mujoco.mjv_updateScene(
            model,
            context.data._data,
            context.vopt,
            context.pert,
            context.cam,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scenes[name][1],
        )
