"""What reading a message takes beside the message itself."""

from __future__ import annotations

import contextlib
import ctypes
import random
from pathlib import Path

from bridge.wire.spec import EpisodeSpec

from . import UnfitError
from .episodes import Episodes

LARGE = EpisodeSpec(
    image_keys=("observation.images.front", "observation.images.wrist"),
    image_shape=(3, 128, 128),
    num_tokens=50,
    proprio_dim=20,
    chunk_size=30,
    n_action_steps=10,
    env_action_dim=7,
    action_dim=20,
    num_latents=11,
    denoise_steps=(1, 2, 4),
    max_chunks=40,
)
LENGTHS = 12, 30


def _held(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def beside(rng: random.Random, messages: int) -> list[float]:
    """Return the peak of resident memory over each of so many long episodes' messages, in messages' lengths.

    What the process has freed before is given back to the system first, so that it is counted when it is used
    again.
    """
    kind, shares = Episodes(LARGE, LENGTHS), []
    trim = ctypes.CDLL(None).malloc_trim
    while len(shares) < messages:
        data = kind.make(rng).data
        if len(data) < 1 << 20:
            continue
        trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
        before = _held("VmRSS")
        with contextlib.suppress(UnfitError):
            kind.read(data)
        shares.append((_held("VmHWM") - before) / len(data))
    return shares
