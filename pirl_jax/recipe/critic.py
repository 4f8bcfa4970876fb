"""``algorithm.critic``: the value function and its regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pirl_jax.recipe import ranges


@dataclass
class CriticConfig:
    """V(s): an MLP on features of the policy's networks, to which no gradient flows, and proprioception."""

    input: Literal["vlm", "expert"] = "vlm"
    """``vlm``: the mean of the VLM's output tokens (πRL's V_vlm). ``expert``: the mean of the flow head's
    last hidden states over the chunk's tokens (V_expert), at x_t = 0, t = 1 and the parameters that an update
    begins with: a function of the observation alone, for one head call an observation and update."""
    hidden_dims: tuple[int, ...] = (1024, 512, 256)
    """Widths of the MLP's hidden layers."""
    lr: float = 1e-4
    """AdamW's learning rate of the critic, constant; its other numbers are ``optimizer``'s."""
    extra_steps: int = 0
    """Value-only minibatch steps after each update, on the same rollouts."""
    warmup_updates: int = 0
    """First updates of a run in which the critic learns alone: a fresh critic's advantages are noise that
    would move the policy all the same."""
    value_clip: float = 0.2
    """A value may move by so much from the one at collection before its loss stops falling."""
    huber_delta: float = 10.0
    """Error above which the loss grows linearly."""
    value_coef: float = 1.0
    """Factor on the loss, which its gradient's clipping sees."""

    def __post_init__(self) -> None:
        ranges.check("critic", self)
