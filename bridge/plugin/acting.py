"""What the actor's algorithm asks of whoever chooses its chunks: this process, or a policy server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Decision:
    """A chunk, and what the learner has to know of it (``bridge.wire.record.Record``)."""

    action: Tensor
    """The chain's end in the model's channels, before ``postprocess``, float32 [1, H, A]."""
    latents: np.ndarray
    log_prob: np.ndarray
    denoise_step: int
    version: int
    number: int
    run: int
    feature_key: int = 0


class Acting(Protocol):
    """Chooses chunks for one environment."""

    channel: Any
    """To the learner (``transport.LearnerChannel``); None: a test, or a program that asks for chunks."""
    version: int
    """Of the parameters that chose last."""

    def agreement(self) -> dict[str, Any]:
        """Return what learner and actor must have in common beside their config."""
        ...

    def decide(self, batch: dict[str, Tensor]) -> Decision:
        """Choose a chunk for one preprocessed observation; may wait for the learner.

        Raises:
            SystemExit: The actor was told to stop while it waited.
        """
        ...

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Take over a parameter message (``bridge.wire.broadcast.serialise``)."""
        ...
