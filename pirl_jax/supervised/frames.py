"""What supervised training learns from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pirl_jax.typing import Float, Int, UInt8


class Frames(NamedTuple):
    """Frames with the action chunks that follow them, in host memory."""

    images: UInt8[np.ndarray, "B V 3 h w"]
    tokens: Int[np.ndarray, "B N"]
    proprio: Float[np.ndarray, "B P"]
    """Padded to the network's proprioception."""
    domain_id: Int[np.ndarray, " B"]
    action: Float[np.ndarray, "B H n"]
    """The robot's channels; the model pads them to its own. Steps past the episode's end repeat its last
    action, and X-VLA's loss counts them like others."""
