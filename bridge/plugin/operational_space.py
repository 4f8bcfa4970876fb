"""gym_hil's operational-space controller, the same torques in a third of the time.

``gym_hil.controllers.opspace`` is most of the cost of a physics step: some thirty small NumPy calls, fifty
times an action. With the task-space acceleration a, the joint-space one q̈ (posture), Jacobian J and inertia
M,

    τ = Jᵀ Λ a + (I - Jᵀ Λ J M⁻¹) q̈ + bias,    Λ = (J M⁻¹ Jᵀ)⁻¹

is τ = q̈ + bias + Jᵀ Λ (a - J M⁻¹ q̈): one Cholesky solve with M, one with Λ⁻¹.
"""

# MuJoCo and LAPACK are binary modules without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math

import mujoco
import numpy as np
from scipy.linalg import lapack

_TASK_STIFFNESS = 200.0  # 1/s², position and orientation; gym_hil's defaults, critically damped
_TASK_DAMPING = 2 * np.sqrt(_TASK_STIFFNESS)
_POSTURE_STIFFNESS = 0.5
_POSTURE_DAMPING = 2 * np.sqrt(_POSTURE_STIFFNESS)
_SINGULAR = 1e-2  # determinant of Λ⁻¹ below which gym_hil uses a pseudo-inverse with this relative cut-off


class OperationalSpaceController:
    """Holds the work arrays of one arm.

    Args:
        model: The MuJoCo model.
        data: Its state; read anew at each call.
        site_id: The controlled site.
        dof_ids: The arm's degrees of freedom, contiguous.
        posture: Joint angles to stay near to, [n].
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        site_id: int,
        dof_ids: np.ndarray,
        posture: np.ndarray,
    ) -> None:
        self._model, self._data, self._site = model, data, site_id
        self._dofs = slice(int(dof_ids[0]), int(dof_ids[-1]) + 1)
        if list(dof_ids) != list(range(self._dofs.start, self._dofs.stop)):
            raise ValueError(f"The arm's degrees of freedom must be contiguous; got {list(dof_ids)}.")
        self._posture = posture
        self._jacobian = np.zeros((6, model.nv))
        self._inertia = np.zeros((model.nv, model.nv))
        self._right = np.zeros((len(dof_ids), 7), order="F")
        self._quaternion, self._desired = np.zeros(4), np.zeros(4)
        self._acceleration = np.zeros(6)

    def torques(self, position: np.ndarray, orientation: np.ndarray) -> np.ndarray:
        """Return the joint torques that pull the site to a pose.

        Args:
            position: In metres, [3].
            orientation: Unit quaternion (w, x, y, z), [4].

        Returns:
            Torques in Nm, [n].
        """
        model, data, dofs = self._model, self._data, self._dofs
        mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        mujoco.mj_fullM(model, self._inertia, data.qM)
        J = self._jacobian[:, dofs]
        velocity = data.qvel[dofs]

        error = self._acceleration
        error[:3] = data.site_xpos[self._site] - position
        mujoco.mju_mat2Quat(self._quaternion, data.site_xmat[self._site])
        mujoco.mju_negQuat(self._desired, orientation)
        mujoco.mju_mulQuat(self._quaternion, self._quaternion, self._desired)
        mujoco.mju_quat2Vel(error[3:], self._quaternion, 1.0)
        a = -_TASK_STIFFNESS * error - _TASK_DAMPING * (J @ velocity)
        posture = -_POSTURE_STIFFNESS * (data.qpos[dofs] - self._posture) - _POSTURE_DAMPING * velocity

        self._right[:, :6] = J.T
        self._right[:, 6] = posture
        _, solved, _ = lapack.dposv(self._inertia[dofs, dofs], self._right)
        projected = J @ solved  # [J M⁻¹ Jᵀ | J M⁻¹ q̈]
        factor, force, failed = lapack.dposv(projected[:, :6], a - projected[:, 6])
        if failed or math.prod(factor.diagonal().tolist()) ** 2 < _SINGULAR:
            force = np.linalg.pinv(projected[:, :6], rcond=_SINGULAR) @ (a - projected[:, 6])
        return posture + data.qfrc_bias[dofs] + J.T @ force
