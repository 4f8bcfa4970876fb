"""X-VLA's action spaces (LeRobot's action hub) as data: which channels are joints, grippers or padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.typing import Array, Float, typed
from pirl_jax.xvla.config import ACTION_DIMS, REAL_ACTION_DIMS, XVLAConfig


def _mse(pred: Array, target: Array) -> Array:
    return jnp.square(pred - target).mean()


def _bce_with_logits(logit: Array, target: Array) -> Array:
    return (jnp.maximum(logit, 0) - logit * target + jnp.log1p(jnp.exp(-jnp.abs(logit)))).mean()


@dataclass(frozen=True)
class LossTerm:
    """``scale · Σ_groups metric(pred[group], target[group])``; a metric averages over all it is given."""

    name: str
    groups: tuple[tuple[int, ...], ...]
    scale: float
    metric: Callable[[Array, Array], Array] = _mse


@dataclass(frozen=True)
class ActionSpace:
    """One action space: the channels as the model sees them and the supervised loss over them."""

    name: str
    dim_action: int
    real_dim: int
    """Channels the robot sees: the first ``real_dim`` of the model's."""
    loss_terms: tuple[LossTerm, ...]
    zeroed: tuple[int, ...] = ()
    """Gripper channels the network does not see, in the action and in the proprioception."""
    sigmoid: tuple[int, ...] = ()
    """Gripper logits, which ``postprocess`` turns into probabilities."""

    @typed
    def preprocess(
        self, proprio: Float[Array, "*B P"], action: Float[Array, "*B H A"]
    ) -> tuple[Float[Array, "*B P"], Float[Array, "*B H A"]]:
        """Hide the gripper channels from the network."""
        return _replace(proprio, self.zeroed, jnp.zeros_like), _replace(action, self.zeroed, jnp.zeros_like)

    @typed
    def postprocess(self, action: Float[Array, "*B A"]) -> Float[Array, "*B R"]:
        """Turn the model's action into the robot's: gripper logits to probabilities, padding dropped."""
        return _replace(action, self.sigmoid, jax.nn.sigmoid)[..., : self.real_dim]

    @typed
    def compute_loss(
        self, pred: Float[Array, "B H A"], target: Float[Array, "B H A2"]
    ) -> dict[str, Float[Array, ""]]:
        """X-VLA's supervised loss by part; their sum is what LeRobot minimises.

        Args:
            pred: The network's clean action.
            target: The action, with the model's or only the robot's channels.
        """
        target = pad_to(target, pred.shape[-1])
        return {
            term.name: term.scale
            * sum((term.metric(pred[..., g], target[..., g]) for g in term.groups), jnp.zeros(()))
            for term in self.loss_terms
        }


def _replace(x: Array, channels: tuple[int, ...], function: Callable[[Array], Array]) -> Array:
    if not channels:
        return x
    chosen = jnp.zeros(x.shape[-1], bool).at[jnp.array(channels)].set(True)
    return jnp.where(chosen, function(x), x)


def _fixed(name: str, *loss_terms: LossTerm, logits: tuple[int, ...] = ()) -> ActionSpace:
    """Return a space of the config's sizes; ``logits`` are gripper channels that the network does not see."""
    return ActionSpace(
        name, ACTION_DIMS[name], REAL_ACTION_DIMS[name], loss_terms, zeroed=logits, sigmoid=logits
    )


def _joints(channels: tuple[int, ...]) -> LossTerm:
    return LossTerm("joints_loss", (channels,), 1.0)


_EE6D = (
    LossTerm("position_loss", ((0, 1, 2), (10, 11, 12)), 500.0),
    LossTerm("rotate6D_loss", (tuple(range(3, 9)), tuple(range(13, 19))), 10.0),
)

FIXED_SPACES: dict[str, ActionSpace] = {
    space.name: space
    for space in (
        _fixed(
            "ee6d",
            *_EE6D,
            LossTerm("gripper_loss", ((9,), (19,)), 0.5, _bce_with_logits),
            logits=(9, 19),
        ),
        _fixed("agibot_ee6d", *_EE6D, LossTerm("gripper_loss", ((9, 19),), 10.0)),
        _fixed(
            "joint",
            _joints((*range(6), *range(7, 13))),
            LossTerm("gripper_loss", ((6,), (13,)), 0.05, _bce_with_logits),
            logits=(6, 13),
        ),
        _fixed("franka_joint7", _joints(tuple(range(7)))),
        _fixed(
            "so101_bimanual",
            _joints(tuple(range(12))),
            LossTerm("gripper_loss", ((5, 11),), 1.0),
            LossTerm("left_arm_loss", (tuple(range(6)),), 1.0),
            LossTerm("right_arm_loss", (tuple(range(6, 12)),), 1.0),
            logits=(5, 11),
        ),
    )
}
"""Every action space whose dimensions do not depend on the robot."""


def action_space(config: XVLAConfig) -> ActionSpace:
    """Return the action space a policy was trained in."""
    if config.action_mode == "auto":
        terms = (_joints(tuple(range(config.real_action_dim))),)
        return ActionSpace("auto", config.dim_action, config.real_action_dim, terms)
    return FIXED_SPACES[config.action_mode]


@typed
def pad_to(x: Float[Array, "*B n"], size: int, *, axis: int = -1) -> Float[Array, "*B2 m"]:
    """Cut or zero-pad one axis to ``size`` (LeRobot's ``pad_vector(..., truncate=True)``)."""
    axis = axis % x.ndim
    x = jax.lax.slice_in_dim(x, 0, min(size, x.shape[axis]), axis=axis)
    return jnp.pad(x, [(0, size - x.shape[i] if i == axis else 0) for i in range(x.ndim)])


def prepare_proprio(state: Float[np.ndarray, "*B n"], dim: int) -> Float[np.ndarray, "*B P"]:
    """Cut or zero-pad a robot's state to the network's proprioception; ``dim`` is ``config.dim_proprio``.

    On the host: there is a batch of every size, and JAX would compile for each.
    """
    state = state[..., :dim]
    return np.pad(state, [(0, 0)] * (state.ndim - 1) + [(0, dim - state.shape[-1])])


def prepare_targets(action: Float[Array, "B H2 n"], config: XVLAConfig) -> Float[Array, "B H A"]:
    """Cut or zero-pad a supervised action chunk in time and in channels, as LeRobot's policy does."""
    return pad_to(pad_to(action, config.chunk_size, axis=1), config.dim_action)
