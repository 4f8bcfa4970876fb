"""``algorithm.push``: what actors are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pirl_jax.recipe import ranges


@dataclass
class PushConfig:
    """Pushes of the trained parameters to the actors."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """The pushed (rounded) weights are the behaviour policy."""

    def __post_init__(self) -> None:
        ranges.check("push", self)
