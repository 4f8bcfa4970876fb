"""The packed action row: what one decision of the policy leaves behind, as one flat float32 vector.

LeRobot's actor moves an action from the policy to the environment and on to the learner as one vector,
untouched. So the vector carries more than the action: the noise that made it, its log-density and the version
of the weights, and which episode of which run it belongs to. NumPy only; the actor and the learner both
import this file.

    row = [magic, format, Hx, R, L, H, A, k, version lo, version hi, number lo, number hi, run lo, run hi,
           feature key lo, feature key hi, crc lo, crc hi,
           env_action, latents, log_prob]

The feature key says where the learner finds what the chunk's observation was encoded to
(``pirl_jax.rollout.encoded``); with 0 the learner encodes it itself.

Integers are exact in float32 below 2^24; larger ones travel as two 16-bit halves. The checksum covers
everything but itself.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MAGIC = 0x504952  # "PIR"
FORMAT = 2
HEADER_SIZE = 18
MAX_ROW_SIZE = 1 << 22
"""Largest accepted row in floats (16 MiB): a corrupted header must not make its reader allocate more."""

_CRC_SLOTS = slice(16, 18)
_MAX_DIM = 1 << 16
_INTEGERS = (("version", 31), ("number", 31), ("run", 32), ("feature_key", 32))
"""Those that travel as two halves, and their bits."""


NO_RUN = 0
"""No learner's process has this id, so that its episodes are dropped."""


class RecordError(ValueError):
    """A row is not an intact record; the message says why."""


class RecordDims(NamedTuple):
    """Sizes of a record's arrays."""

    n_action_steps: int
    """Hx: steps of the chunk that are executed."""
    env_action_dim: int
    """R: channels of an executed action."""
    num_latents: int
    """L: latents kept of the denoising chain."""
    chunk_size: int
    """H: steps of a whole chunk."""
    action_dim: int
    """A: action channels as the model sees them."""

    @property
    def row_size(self) -> int:
        """Floats in the row, header included."""
        body = self.n_action_steps * self.env_action_dim + self.chunk_size
        return HEADER_SIZE + body + self.num_latents * self.chunk_size * self.action_dim


@dataclass(frozen=True)
class Record:
    """One decision of the policy.

    Attributes:
        env_action: What the environment executes, after post-processing, float32 [Hx, R].
        latents: States of the denoising chain (``pirl_jax.likelihood.modes.num_latents``), float32 [L, H, A].
        log_prob: Log-density of each chunk step's noise, summed over scored channels, float32 [H].
        denoise_step: Index k of the (first) noised step, which goes from time k/K to (k-1)/K; 0 for a chunk
            without noise (``pirl_jax.likelihood.modes.NO_STEP``).
        version: Version of the weights that chose the action; 0 for weights that no learner has sent.
        number: Of the episode, counted over the whole run.
        run: Id of the learner's process that assigned the episode, in [0, 2^32).
        feature_key: Of what the observation was encoded to, in [0, 2^32); 0 if nobody has kept that.
    """

    env_action: np.ndarray
    latents: np.ndarray
    log_prob: np.ndarray
    denoise_step: int
    version: int
    number: int = 0
    run: int = 0
    feature_key: int = 0

    @property
    def dims(self) -> RecordDims:
        """Sizes of the arrays."""
        return RecordDims(*self.env_action.shape, *self.latents.shape)


def pack(record: Record) -> np.ndarray:
    """Return the record as one float32 vector of ``record.dims.row_size`` numbers.

    Raises:
        RecordError: The arrays' shapes do not fit each other, an integer is out of range, or a number is not
        finite.
    """
    if record.env_action.ndim != 2 or record.latents.ndim != 3 or record.log_prob.ndim != 1:
        raise RecordError(
            "env_action, latents and log_prob must have 2, 3 and 1 dimensions; got shapes "
            f"{record.env_action.shape}, {record.latents.shape}, {record.log_prob.shape}."
        )
    dims = record.dims
    if len(record.log_prob) != dims.chunk_size or dims.n_action_steps > dims.chunk_size:
        raise RecordError(f"log_prob of {len(record.log_prob)} steps does not fit {dims}.")
    _check_dims(dims)
    for name, bits in _INTEGERS:
        if not 0 <= getattr(record, name) < 1 << bits:
            raise RecordError(f"{name} must be in [0, 2^{bits}); got {getattr(record, name)}.")
    if not 0 <= record.denoise_step < _MAX_DIM:
        raise RecordError(f"denoise_step must be in [0, {_MAX_DIM}); got {record.denoise_step}.")
    row = np.empty(dims.row_size, np.float32)
    halves = [half for name, _ in _INTEGERS for half in _halves(getattr(record, name))]
    row[: _CRC_SLOTS.start] = (MAGIC, FORMAT, *dims, record.denoise_step, *halves)
    body = (record.env_action, record.latents, record.log_prob)
    row[HEADER_SIZE:] = np.concatenate([np.asarray(part, np.float32).ravel() for part in body])
    if not np.isfinite(row[HEADER_SIZE:]).all():
        raise RecordError("The policy's action, latents or log-probability hold NaN or infinity.")
    row[_CRC_SLOTS] = _halves(_checksum(row))
    return row


def unpack(row: np.ndarray, *, dims: RecordDims | None = None) -> Record:
    """Read a row back; exact inverse of :func:`pack`.

    Args:
        row: float32 [row_size] or [1, row_size].
        dims: Sizes the reader expects; None accepts what the header says.

    Raises:
        RecordError: The row is short, foreign, corrupted, not finite, or of other sizes than ``dims``.
    """
    row = np.asarray(row)
    if row.dtype != np.float32:
        raise RecordError(f"A row is float32; got {row.dtype}. Something converted it on its way.")
    row = np.ascontiguousarray(row.reshape(-1))
    if len(row) < HEADER_SIZE:
        raise RecordError(f"A row has at least {HEADER_SIZE} numbers; got {len(row)}.")
    # Compared as floats: NaN, infinity and fractions in a corrupted header must not reach int().
    header = row[:HEADER_SIZE]
    if header[0] != MAGIC:
        raise RecordError(
            f"The row does not start with the magic number {MAGIC}; got {header[0]}. Not a record?"
        )
    if header[1] != FORMAT:
        raise RecordError(
            f"The row has format {header[1]}, this program reads {FORMAT}: use one release on both sides."
        )
    if not (np.isfinite(header).all() and (header == np.floor(header)).all() and (header >= 0).all()):
        raise RecordError(f"The row's header holds something other than natural numbers: {header.tolist()}.")
    integers = [int(number) for number in header]
    found = RecordDims(*integers[2:7])
    _check_dims(found)
    if found.row_size != len(row):
        raise RecordError(f"A row of {found} has {found.row_size} numbers; got {len(row)}. Truncated?")
    if max(integers[8:]) >= 1 << 16:
        raise RecordError(f"The row's header holds a 16-bit half above 65535: {integers[8:]}.")
    version, number, run, feature_key, checksum = (
        low + (high << 16) for low, high in zip(integers[8::2], integers[9::2])
    )
    if _checksum(row) != checksum:
        raise RecordError("The row's checksum is wrong: something changed it on its way.")
    if not np.isfinite(row).all():
        raise RecordError("The row holds NaN or infinity.")
    if dims is not None and found != dims:
        raise RecordError(f"The row is of {found}; expected {dims}. Do actor and learner share one config?")
    Hx, R, L, H, A = found
    env_action, latents, log_prob = np.split(row[HEADER_SIZE:], [Hx * R, Hx * R + L * H * A])
    return Record(
        env_action=env_action.reshape(Hx, R),
        latents=latents.reshape(L, H, A),
        log_prob=log_prob,
        denoise_step=integers[7],
        version=version,
        number=number,
        run=run,
        feature_key=feature_key,
    )


def _check_dims(dims: RecordDims) -> None:
    if not all(0 < size < _MAX_DIM for size in dims) or dims.row_size > MAX_ROW_SIZE:
        raise RecordError(
            f"Sizes out of bounds: {dims} (each in [1, {_MAX_DIM}), row of at most {MAX_ROW_SIZE})."
        )


def _halves(number: int) -> tuple[int, int]:
    return number & 0xFFFF, number >> 16


def _checksum(row: np.ndarray) -> int:
    return zlib.crc32(row[_CRC_SLOTS.stop :].tobytes(), zlib.crc32(row[: _CRC_SLOTS.start].tobytes()))
