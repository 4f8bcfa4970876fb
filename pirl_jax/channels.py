"""Which action channels carry noise and a likelihood, in groups that may have noise levels of their own.

Gripper logits are left out, since LIBERO thresholds them, and so is padding that nothing executes. Standard
library only: the actor's plugin and the learner read one table.
"""

from __future__ import annotations

from collections.abc import Mapping

Groups = Mapping[str, tuple[int, ...]]

_XYZ = (0, 1, 2)
_ROT6D = (3, 4, 5, 6, 7, 8)

# X-VLA's single-arm robots use the first arm of the two-armed ee6d spaces; the second is padding.
XVLA_GROUPS: Mapping[str, Groups] = {
    "ee6d": {"xyz": _XYZ, "rot6d": _ROT6D},
    "agibot_ee6d": {"xyz": _XYZ, "rot6d": _ROT6D, "gripper": (9,)},
    "joint": {"joints": (*range(6), *range(7, 13))},
    "so101_bimanual": {"joints": (*range(5), *range(6, 11))},
    "franka_joint7": {"joints": tuple(range(7))},
}


def xvla_groups(action_mode: str, real_dim: int) -> Groups:
    """Return the noised channels of one of X-VLA's action spaces, by group.

    Args:
        action_mode: ``policy.action_mode``.
        real_dim: Channels of the robot's own action, which ``auto`` takes as they come.

    Raises:
        ValueError: An action space that is not in the table.
    """
    if action_mode == "auto":
        return {"joints": tuple(range(real_dim))}
    if action_mode not in XVLA_GROUPS:
        raise ValueError(
            f"policy.action_mode={action_mode!r} has no list of noised channels. Use one of "
            f"{', '.join(sorted(XVLA_GROUPS))}, auto."
        )
    return XVLA_GROUPS[action_mode]
