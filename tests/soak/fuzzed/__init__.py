"""Kinds of messages that are made to break their readers, each with a second reader to compare with.

A second reader is written from what the first one's documentation says, without its code, and slowly. It may
read bytes that the first refuses (torch's and safetensors' readers want more of a file than it needs), never
the other way round.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Made:
    """A message, and what was done to it."""

    data: bytes
    damaged: bool
    """Whether its bytes were changed after it was written, and not only what was written."""
    done: tuple[str, ...] = ()


class UnfitError(Exception):
    """What was read is none of this kind; of the first reader with its reason."""


class Kind(Protocol):
    """A kind of message."""

    def make(self, rng: random.Random) -> Made:
        """Return a message, right or almost."""
        ...

    def read(self, data: bytes) -> Any:
        """Read it as the project does.

        Raises:
            UnfitError: It was refused, as it should refuse.
        """
        ...

    def reread(self, data: bytes) -> Any:
        """Read it by the second reader.

        Raises:
            UnfitError: It should be refused.
        """
        ...


def same(a: Any, b: Any) -> bool:
    """Tell whether two things that were read are equal, arrays bit for bit and in type and shape."""
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and (a.dtype, a.shape) == (b.dtype, b.shape)
            and a.tobytes() == b.tobytes()
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def broken(rng: random.Random, data: bytes) -> bytes:
    """Return bytes of which some are others, or that end too early or too late."""
    changed = bytearray(data)
    way = rng.randrange(5)
    if way == 0:
        return data[: rng.randrange(len(data) + 1)]
    if way == 1:
        return data + rng.randbytes(rng.randrange(1, 40))
    for _ in range(rng.randint(1, 4)):
        # What a file says of itself is at its ends: most of what is between are numbers.
        near = rng.randrange(min(len(data), 1500))
        place = rng.choice((near, len(data) - 1 - near, rng.randrange(len(data))))
        changed[place] = rng.randrange(256)
    return bytes(changed)


ODD_NUMBERS = (0.0, 1.0, -1.0, 0.5, 2.0, 65535.0, 65536.0, 1e15, 2e15, 3e38, float("nan"), float("inf"))


def odd_value(rng: random.Random) -> Any:
    """Return something plain that is hardly what belongs there."""
    return rng.choice(
        (None, True, False, 0, 1, -1, 1 << 31, 10**400, *ODD_NUMBERS, "", "yes", "é" * 300, [], [1], {}, ())
    )
