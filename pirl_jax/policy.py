"""What PI-RL needs to know of a flow policy: a handful of pure functions and sizes.

A second flow policy is one more function returning a ``FlowPolicy`` (``pirl_jax.xvla.policy`` returns
X-VLA's); nothing else in the learner names a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Params = Any
"""A nested dict of arrays."""
Features = Any
"""A pytree of arrays with leading dimension B: what the frozen encoder makes of an observation, once."""


@dataclass(frozen=True)
class FlowPolicy:
    """A flow policy, split into a frozen encoder and a trainable head."""

    split: Callable[[Params], tuple[Params, Params]]
    """``params -> (trainable, frozen)``."""
    merge: Callable[[Params, Params], Params]
    """``(trainable, frozen) -> params``, the inverse of ``split``. Ignores what is trained besides the policy
    (``pirl_jax.likelihood.noise_head``)."""
    encode: Callable[..., Features]
    """``(frozen, images UInt8[B V C h w], tokens Int[B N]) -> features``."""
    predict: Callable[..., Any]
    """``(trainable, features, x_t Float[B H A], t Float[B], proprio Float[B P], domain_id Int[B]) ->
    Float[B H A]``, the clean action â or the velocity v (``parametrization``)."""
    supervised_loss: Callable[..., Any]
    """``(trainable, features, proprio Float[B P], domain_id Int[B], action Float[B H n], key) -> `` the loss
    of supervised training, a scalar; its noise and times are drawn with ``key``."""
    critic_inputs: Mapping[str, Callable[..., Any]]
    """``Recipe.critic.input`` → ``(trainable, features, proprio Float[B P], domain_id Int[B]) -> `` what the
    critic sees, ``Float[B D]``."""
    prepare_proprio: Callable[[np.ndarray], np.ndarray]
    """Raw state ``[B P']`` to what ``predict`` takes."""
    summarize: Callable[..., Any]
    """``(features, proprio Float[B P]) -> Float[B summary_dim]``: an observation as one vector."""
    summary_dim: int
    num_denoising_steps: int
    chunk_size: int
    n_action_steps: int
    dim_action: int
    channel_groups: Mapping[str, tuple[int, ...]]
    """Group → action channels that carry noise and are scored."""
    gripper_logits: tuple[int, ...] = ()
    """Executed channels that are logits of a closed gripper (``pirl_jax.likelihood.gripper``)."""
    parametrization: str = "data"
    """What ``predict`` returns: ``data``, the clean action â (X-VLA), or ``velocity``, v = noise - action
    with time from 1 to 0 (π0, SmolVLA)."""
