"""What PI-RL needs to know of a flow policy: its contract.

A second flow policy is one more class with these members (``pirl_jax.xvla.policy`` has X-VLA's); nothing else
in the learner names a model. Dimension letters are those of ``pirl_jax.typing``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

import jax
import numpy as np

from pirl_jax.linear import Precision
from pirl_jax.typing import Array, Features, Float, Int, Params, PRNGKeyArray, UInt8


class FlowPolicy(Protocol):
    """A flow policy, split into a frozen encoder and a trainable head: pure functions and sizes.

    It is hashable, and policies that are equal compute the same: programs are compiled once for all of them.
    """

    @property
    def num_denoising_steps(self) -> int:
        """K, steps from noise to action."""
        ...

    @property
    def chunk_size(self) -> int:
        """H, steps of a predicted chunk."""
        ...

    @property
    def dim_action(self) -> int:
        """A, action channels as the model sees them."""
        ...

    @property
    def channel_groups(self) -> Mapping[str, tuple[int, ...]]:
        """Group → action channels that carry noise and are scored."""
        ...

    @property
    def gripper_logits(self) -> tuple[int, ...]:
        """Executed channels that are logits of a closed gripper (``likelihood.gripper``); () for none."""
        ...

    @property
    def parametrization(self) -> str:
        """What ``predict`` returns: ``data``, the clean action â, or ``velocity``, v = noise - action.

        Time runs from 1 (noise) to 0 (action) either way. X-VLA predicts data; π0 and SmolVLA velocities.
        """
        ...

    @property
    def head_precision(self) -> Precision:
        """In which the learner computes ``predict``'s products."""
        ...

    @property
    def summary_dim(self) -> int:
        """Width of what ``summarize`` returns."""
        ...

    @property
    def critic_input_dims(self) -> Mapping[str, int]:
        """What the critic may see (``CriticConfig.input``) → its width D."""
        ...

    def split(self, params: Params) -> tuple[Params, Params]:
        """Return the trainable and the frozen part; ``group`` may keep some of the former as they are."""
        ...

    def merge(self, trainable: Params, frozen: Params) -> Params:
        """Undo ``split``; what is trained besides the policy (``noise_head``) is left out."""
        ...

    def group(self, name: str) -> str | None:
        """Return the group, for metrics, that a tensor of the trainable part is trained in; None if it stays.

        Args:
            name: its path in the parameters, joined by dots.
        """
        ...

    def encode(
        self, frozen: Params, images: UInt8[Array, "B V C h w"], tokens: Int[Array, "B N"]
    ) -> Features:
        """Return what the frozen encoder makes of observations: arrays with leading dimension B."""
        ...

    def predict(
        self,
        trainable: Params,
        features: Features,
        x_t: Float[Array, "B H A"],
        t: Float[Array, " B"],
        proprio: Float[Array, "B P"],
        domain_id: Int[Array, " B"],
    ) -> Float[Array, "B H A"]:
        """Return the clean action or the velocity (``parametrization``), in at least float32."""
        ...

    def supervised_loss(
        self,
        trainable: Params,
        features: Features,
        proprio: Float[Array, "B P"],
        domain_id: Int[Array, " B"],
        action: Float[Array, "B H n"],
        key: PRNGKeyArray,
    ) -> Float[Array, ""]:
        """Return the loss of supervised training; its noise and times are drawn with ``key``."""
        ...

    def critic_input(
        self,
        kind: str,
        trainable: Params,
        features: Features,
        proprio: Float[Array, "B P"],
        domain_id: Int[Array, " B"],
    ) -> Float[Array, "B D"]:
        """Return what the critic sees of observations; ``kind`` is one of ``critic_input_dims``."""
        ...

    def prepare_proprio(self, state: Float[np.ndarray, "B P2"]) -> Float[np.ndarray, "B P"]:
        """Turn a robot's raw state into what ``predict`` takes."""
        ...

    def summarize(self, features: Features, proprio: Float[Array, "B P"]) -> Float[Array, "B W"]:
        """Return an observation as one vector, which a learned noise depends on."""
        ...


@lru_cache(maxsize=8)
def encoder(policy: FlowPolicy) -> Callable[..., Features]:
    """Return ``FlowPolicy.encode``, one compiled function for all who encode with this policy."""
    return jax.jit(policy.encode)
