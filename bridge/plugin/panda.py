"""gym_hil's PandaPickCube as a vision-language-action task that renders cheaply: ``pirl/PandaPickCube-v0``.

Physics, task and reward are LeRobot's own (``gym_hil.envs.PandaPickCubeGymEnv``), the controller is the same,
computed faster. What differs is what a small policy on a few CPU cores needs: four action channels in
[-1, 1], a proprioceptive state of order one, an episode limit of its own, seeds that really fix the cube, and
one image, drawn only when asked for. Software rendering is paid by the triangle, not by the pixel, so the
collision meshes are drawn (a third of the triangles), without shadows, reflections or multi-sampling: about
10 ms an image where the stock environment takes 210.
"""

# MuJoCo and LAPACK are binary modules without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import atexit
import logging
import os
import sys
import weakref
from typing import Any

import gymnasium as gym
import numpy as np

if sys.platform == "linux" and not os.environ.get("DISPLAY") and "MUJOCO_GL" not in os.environ:
    # MuJoCo picks its OpenGL back end at import; its default needs a display.
    os.environ["MUJOCO_GL"] = "egl"
    if "mujoco" in sys.modules:
        logging.getLogger(__name__).warning(
            "mujoco was imported before bridge.plugin.panda and will look for a display. Set MUJOCO_GL=egl."
        )

import mujoco
from gym_hil import GymRenderingSpec
from gym_hil.envs import PandaPickCubeGymEnv
from gym_hil.mujoco_gym_env import MAX_GRIPPER_COMMAND
from gym_hil.wrappers.hil_wrappers import DEFAULT_EE_STEP_SIZE
from gymnasium.envs.registration import register

from bridge.plugin.operational_space import OperationalSpaceController

ENV_ID = "pirl/PandaPickCube-v0"
INSTRUCTION = "pick up the pink cube"
MAX_EPISODE_STEPS = 32
METRES_PER_ACTION = np.asarray([DEFAULT_EE_STEP_SIZE[axis] for axis in "xyz"])
"""Displacement of the controller's target by an action of one, as in gym_hil's end-effector wrapper."""

_TCP_CENTRE = np.asarray([0.4, 0.0, 0.25])
_TCP_SCALE = np.asarray([0.2, 0.3, 0.25])
_FINGER_CLOSED = 0.8  # rad, the 2F-85's driver joint when shut
_DRAWN_GROUPS = {
    "simple": (0, 3),
    "detailed": (0, 2),
}  # geom groups: floor and cube, collision or visual meshes
_LOOK_AT = np.asarray([0.4, 0.0, 0.12])  # m, the middle of the space the task uses
_FIELD_OF_VIEW = 30.0  # degrees
_FLAGS_OFF = ("SHADOW", "REFLECTION", "SKYBOX", "FOG", "HAZE")


class PandaPickCube(PandaPickCubeGymEnv):
    """Lift a cube, placed at random, by 10 cm.

    Action: ``[dx, dy, dz, gripper]`` in [-1, 1]; ±1 moves the controller's target by 2.5 cm, and adds ±1 to
    the gripper command, which the controller clips to [0, 1] (so positive closes, negative opens). Larger
    values are clipped.

    Observation: ``{"pixels": {"front": uint8 [h, w, 3]}, "agent_pos": float32 [5]}``. ``agent_pos`` holds the
    tool's x, y, z scaled to about [-1, 1], the gripper command in [0, 1] (1 closed) and the fingers' measured
    closure in about [0, 1]. ``pixels`` is missing while rendering is off (``set_rendering(False)``).

    Args:
        image_size: Height and width of the image in pixels.
        max_episode_steps: Actions after which an episode is truncated; None for no limit.
        detail: ``simple`` draws collision meshes, ``detailed`` the visual ones (twice as slow).
        close_up: Aim the front camera at the workspace and zoom in; otherwise the stock camera's view.
        render_mode: Accepted for ``gym.make``; frames are always arrays.
    """

    def __init__(
        self,
        image_size: int = 64,
        max_episode_steps: int | None = MAX_EPISODE_STEPS,
        detail: str = "simple",
        close_up: bool = True,
        render_mode: str = "rgb_array",
    ) -> None:
        if detail not in _DRAWN_GROUPS:
            raise ValueError(f"detail must be one of {sorted(_DRAWN_GROUPS)}; got {detail!r}.")
        if image_size <= 0:
            raise ValueError(f"image_size must be positive; got {image_size}.")
        if max_episode_steps is not None and max_episode_steps <= 0:
            raise ValueError(f"max_episode_steps must be positive or None; got {max_episode_steps}.")
        self._close_up = close_up
        self._rendering = True
        self._steps = 0
        self._max_episode_steps = max_episode_steps
        self._viewer: Any
        super().__init__(
            render_spec=GymRenderingSpec(height=image_size, width=image_size),
            render_mode="rgb_array",
            random_block_position=True,
        )
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / self.control_dt)}
        self._scene_option = mujoco.MjvOption()
        self._scene_option.geomgroup[:] = 0
        self._scene_option.geomgroup[list(_DRAWN_GROUPS[detail])] = 1
        for flag in _FLAGS_OFF:
            self._viewer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        self._controller = OperationalSpaceController(
            self._model, self._data, self._pinch_site_id, self._panda_dof_ids, self._home_position
        )
        # An OpenGL context that outlives the interpreter's shutdown prints errors.
        atexit.register(_close, weakref.ref(self))
        self.observation_space = gym.spaces.Dict(
            {
                "pixels": gym.spaces.Dict(
                    {"front": gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)}
                ),
                "agent_pos": gym.spaces.Box(-np.inf, np.inf, (5,), np.float32),
            }
        )

    def _setup_action_space(self) -> None:
        self.action_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
        # The base class calls this between loading the model and creating its renderer, which is the one
        # moment when the sizes of the shadow map (4096²) and of the frame buffer (8 samples a pixel) can be
        # set without paying for them first.
        self._model.vis.quality.shadowsize = 0
        self._model.vis.quality.offsamples = 0
        if self._close_up:
            camera = self._model.camera("front")
            camera.quat[:] = _look_at(camera.pos, _LOOK_AT)
            camera.fovy[:] = _FIELD_OF_VIEW

    def set_rendering(self, enabled: bool) -> None:
        """Draw images from now on, or leave ``pixels`` out of the observations."""
        self._rendering = enabled

    def observe(self) -> dict[str, Any]:
        """Return the present state's observation, with its image, whatever ``set_rendering`` says."""
        return {"pixels": {"front": self.render()}, "agent_pos": self._agent_pos()}

    def reset(self, seed: int | None = None, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode. The same seed gives the same cube position, whatever was drawn before."""
        self._steps = 0
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        # The stock environment draws the cube from NumPy's global generator: lend it a seeded one and give
        # back the caller's.
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            observation, _ = super().reset(seed=seed, **kwargs)
        finally:
            np.random.set_state(state)
        return observation, {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Act for 0.1 s of simulated time. Reward is 1 on success, else 0."""
        action = np.asarray(action, np.float64)
        if action.shape != (4,) or not np.isfinite(action).all():
            raise ValueError(f"An action is four finite numbers (dx, dy, dz, gripper); got {action}.")
        x, y, z, gripper = np.clip(action, -1.0, 1.0) * (*METRES_PER_ACTION, 1.0)
        observation, reward, terminated, _, info = super().step(np.asarray([x, y, z, 0.0, 0.0, 0.0, gripper]))
        self._steps += 1
        limit = self._max_episode_steps
        truncated = not terminated and limit is not None and self._steps >= limit
        return observation, float(reward), bool(terminated), truncated, {"is_success": bool(info["succeed"])}

    def apply_action(self, action: np.ndarray) -> None:
        """Do as the stock method, with the faster controller."""
        data = self._data
        data.mocap_pos[0] = np.clip(data.mocap_pos[0] + action[:3], *self._cartesian_bounds)
        data.ctrl[self._gripper_ctrl_id] = (
            np.clip(self.gripper_command + action[6], 0.0, 1.0) * MAX_GRIPPER_COMMAND
        )
        target, orientation = data.mocap_pos[0].copy(), data.mocap_quat[0].copy()
        for _ in range(self._n_substeps):
            data.ctrl[self._panda_ctrl_ids] = self._controller.torques(target, orientation)
            mujoco.mj_step(self._model, data)

    def render(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draw the front camera: uint8 [h, w, 3]."""
        self._viewer.update_scene(self._data, camera="front", scene_option=self._scene_option)
        return self._viewer.render().copy()

    @property
    def tcp_pos(self) -> np.ndarray:
        """Position of the point between the finger tips in metres, [3]."""
        return self._data.sensor("2f85/pinch_pos").data.copy()

    @property
    def target_pos(self) -> np.ndarray:
        """The controller's target in metres, [3]: what an action displaces."""
        return self._data.mocap_pos[0].copy()

    @property
    def block_pos(self) -> np.ndarray:
        """Position of the cube's centre in metres, [3] (privileged: for a scripted expert)."""
        return self._data.sensor("block_pos").data.copy()

    @property
    def gripper_command(self) -> float:
        """The gripper command in [0, 1], 1 closed."""
        return float(self._data.ctrl[self._gripper_ctrl_id] / MAX_GRIPPER_COMMAND)

    def _agent_pos(self) -> np.ndarray:
        tcp = (self._data.sensor("2f85/pinch_pos").data - _TCP_CENTRE) / _TCP_SCALE
        closure = self._data.qpos[self._finger_qpos] / _FINGER_CLOSED
        return np.asarray([*tcp, self.gripper_command, closure], np.float32)

    def _setup_observation_space(self) -> None:
        self._finger_qpos = int(self._model.joint(_finger_joint(self._model)).qposadr[0])
        super()._setup_observation_space()

    def _compute_observation(self) -> dict[str, Any]:
        return self.observe() if self._rendering else {"agent_pos": self._agent_pos()}


def _finger_joint(model: mujoco.MjModel) -> str:
    names = [model.joint(i).name for i in range(model.njnt)]
    return next(name for name in names if name.endswith("right_driver_joint"))


def _look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the MuJoCo camera quaternion (looking along -z, y up) of a camera that faces ``target``."""
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(back, right), back], axis=1)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion


def make_panda_pick_cube(**kwargs: Any) -> gym.Env:
    """Create a ``PandaPickCube``; keyword arguments are its own."""
    return PandaPickCube(**kwargs)


def _close(env: weakref.ref[PandaPickCube]) -> None:
    if (alive := env()) is not None:
        alive.close()


# gym.make keeps max_episode_steps for its own time limit, so the registered environment has none inside.
register(
    id=ENV_ID,
    entry_point=make_panda_pick_cube,
    kwargs={"max_episode_steps": None},
    max_episode_steps=MAX_EPISODE_STEPS,
    disable_env_checker=True,
    order_enforce=False,
)
