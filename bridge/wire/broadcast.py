"""Parameter messages, and the newest of them for whoever asks."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from bridge.wire.archive import load_plain

_MAX_PICKLE_BYTES = 1 << 20
"""Of a message's names and shapes. torch.save writes about 150 a tensor, of which a policy has hundreds."""
_ROUNDED = frozenset({"torch BFloat16Storage", "torch HalfStorage"})


class Broadcast:
    """The newest parameter message, and a place for streams to wait for a newer one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._message = b""
        self._closed = False
        self._version = -1

    @property
    def version(self) -> int:
        """Version of the newest message; -1 before the first."""
        return self._version

    def set(self, version: int, message: bytes) -> None:
        """Replace the newest message."""
        with self._changed:
            self._version, self._message = version, message
            self._changed.notify_all()

    def wake(self) -> None:
        """Have every waiting stream ask again whether it is still wanted."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """End all waiting, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def newer_than(self, version: int, still_wanted: Callable[[], bool]) -> tuple[int, bytes] | None:
        """Wait for a version above `version`; None once closed or no longer wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not still_wanted() or self._version > version)
            if self._closed or not still_wanted():
                return None
            return self._version, self._message


def serialise(run: int, version: int, level: float, tensors: Mapping[str, Any]) -> bytes:
    """Return the parameter message: what LeRobot's `bytes_to_state_dict` reads in the actor.

    Args:
        run: Id of the learner's process.
        version: Policy version of the tensors.
        level: Noise level that belongs to it (`pirl_jax.likelihood.modes.level_at`).
        tensors: torch parameter name → torch tensor, NumPy array (ml_dtypes' bfloat16 too), or anything else
            in host memory that speaks DLPack, such as a JAX array on the CPU.

    Returns:
        `torch.save({"run": int64 scalar, "version": int64 scalar, "level": float64 scalar,
        "policy": {name: tensor}})`.
    """
    policy = {name: _to_torch(value) for name, value in tensors.items()}
    buffer = io.BytesIO()
    scalars = {
        "run": torch.tensor(run),
        "version": torch.tensor(version),
        "level": torch.tensor(level, dtype=torch.float64),
    }
    torch.save(scalars | {"policy": policy}, buffer)
    return buffer.getvalue()


def deserialise(message: bytes) -> Mapping[str, Any]:
    """Read what `serialise` has written, as far as it is a mapping; what is in it is for the reader to check.

    Raises:
        ValueError: It cannot be read, is no mapping, or holds anything but plain tensors and containers.
    """
    try:
        weights = load_plain(message, _MAX_PICKLE_BYTES, _ROUNDED)
    except ValueError as error:
        first = str(error).partition("\n")[0][:200]
        raise ValueError(f"a parameter message of {len(message)} bytes cannot be read: {first}") from error
    if not isinstance(weights, dict):
        raise ValueError(f"a parameter message must be a mapping; got a {type(weights).__name__}.")
    return weights


def _to_torch(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
    elif isinstance(value, np.ndarray) and value.dtype.name == "bfloat16":
        # NumPy's DLPack does not know ml_dtypes.
        tensor = torch.from_dlpack(value.view(np.int16)).view(torch.bfloat16)
    else:
        # Not from_numpy: it warns about the read-only arrays that JAX hands out.
        tensor = torch.from_dlpack(value)
    # torch.save writes the whole storage of a view.
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
