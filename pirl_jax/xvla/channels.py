"""Which action channels carry noise and a likelihood, in groups that may have noise levels of their own.

Gripper logits are no part of these groups, since they are thresholded: ``pirl_jax.likelihood.gripper`` draws
them, if anything does. Padding that nothing executes is left out of both. Standard library only: the actor's
plugin and the learner read one table.
"""

from __future__ import annotations

from collections.abc import Mapping

ChannelGroups = Mapping[str, tuple[int, ...]]

_XYZ = (0, 1, 2)
_ROT6D = (3, 4, 5, 6, 7, 8)

# X-VLA's single-arm robots use the first arm of the two-armed ee6d spaces; the second is padding.
XVLA_GROUPS: Mapping[str, ChannelGroups] = {
    "ee6d": {"xyz": _XYZ, "rot6d": _ROT6D},
    "agibot_ee6d": {"xyz": _XYZ, "rot6d": _ROT6D, "gripper": (9,)},
    "joint": {"joints": (*range(6), *range(7, 13))},
    "so101_bimanual": {"joints": (*range(5), *range(6, 11))},
    "franka_joint7": {"joints": tuple(range(7))},
}

# Trained as logits of closing (so101_bimanual's, which pass the same sigmoid, are regressed as positions).
XVLA_GRIPPER_LOGITS: Mapping[str, tuple[int, ...]] = {"ee6d": (9,), "joint": (6, 13)}


def xvla_groups(action_mode: str, real_dim: int) -> ChannelGroups:
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


def xvla_gripper_logits(action_mode: str) -> tuple[int, ...]:
    """Return the executed channels of one of X-VLA's action spaces that are logits of a closed gripper."""
    return XVLA_GRIPPER_LOGITS.get(action_mode, ())
