"""What an update does, apart from its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pirl_jax.likelihood.stochastic import StochasticPolicy
from pirl_jax.placement import ONE_DEVICE, Placement
from pirl_jax.recipe import CriticConfig, DemonstrationsConfig, ObjectiveConfig, OptimizerConfig
from pirl_jax.typing import Array
from pirl_jax.update.critic import ValueFunction


def first_name(name: str) -> str:
    """Return the top-level branch that a parameter stands in."""
    return name.split(".")[0]


@dataclass(frozen=True, eq=False)
class Method:
    """Functions of the trained parameters, and the sections of the recipe that a minibatch step reads."""

    policy: StochasticPolicy
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    critic: CriticConfig
    value: ValueFunction | None
    """None without a critic (``advantage.estimator=group``)."""
    demonstrations: DemonstrationsConfig
    supervised_loss: Callable[..., Array] | None = None
    """``FlowPolicy.supervised_loss``; None without demonstrations."""
    capacity: int | None = None
    """The most rows that an update may have, for shapes that do not change; None: those that it has."""
    microbatch_size: int | None = None
    """Points of a minibatch that are in work at a time; None: all."""
    group: Callable[[str], str | None] = first_name
    """Parameter's dotted name → the group it is trained in; None if it is not (``FlowPolicy.group``)."""
    placement: Placement = ONE_DEVICE
    """Where parameters, moments and rows lie."""
