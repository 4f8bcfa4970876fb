"""The messages of an actor that asks for its chunks: an observation there, a chunk back.

A message is a safetensors file in memory: arrays without pickle, and under ``HEADER`` the JSON of a
dataclass. An instruction is sent once and named by its hash from then on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from bridge.wire import protocol
from bridge.wire.protocol import ProtocolError
from bridge.wire.spec import EpisodeSpec

SERVICE, ACT = "pirl.Policy", "Act"
UNKNOWN_TOKENS = "tokens"
"""Details of the NOT_FOUND with which an instruction is asked for that only its hash was given of."""

HEADER = "header"
_OVERHEAD = 16 * 1024
_IMAGES, _PROPRIO, _TOKENS = "images", "proprio", "tokens"


@dataclass(frozen=True)
class Question:
    """What belongs to an observation."""

    actor: str
    """Id of the process."""
    tokens: str
    """Hash of the instruction (``name_of``)."""
    domain_id: int
    noise_key: int
    """Of the episode (``assignments.noise_key``)."""
    chunk: int
    """Index of the chunk in the episode."""
    run: int
    """Id of the learner's process that has assigned the episode."""
    version: int
    """The oldest of its parameters that may choose it."""
    noise_free: bool
    """Whether it is of an evaluation: without noise, and its features are not kept."""


@dataclass(frozen=True)
class Answer:
    """What belongs to a chunk (``serving.acting.Acted``)."""

    denoise_step: int
    run: int
    version: int
    feature_key: int


@dataclass(frozen=True)
class Observation:
    """What the policy sees, without the instruction."""

    images: np.ndarray
    """uint8 [V, C, h, w], the views in the order of the policy's image features."""
    proprio: np.ndarray
    """float32 [P]"""


@dataclass(frozen=True)
class Chunk:
    """What the policy's chain has drawn, in the model's channels."""

    action: np.ndarray
    """float32 [H, A]"""
    latents: np.ndarray
    """float32 [L, H, A]"""
    log_prob: np.ndarray
    """float32 [H]"""


def name_of(tokens: np.ndarray) -> str:
    """Return the hash of an instruction, token ids int64 [N]."""
    return hashlib.blake2b(np.ascontiguousarray(tokens, np.int64).tobytes(), digest_size=16).hexdigest()


def encode_question(question: Question, observation: Observation, tokens: np.ndarray | None = None) -> bytes:
    """Return the message; with the instruction where the server does not know it yet."""
    arrays = {_IMAGES: observation.images, _PROPRIO: observation.proprio}
    return _encode(question, arrays if tokens is None else {**arrays, _TOKENS: tokens})


def decode_question(data: bytes, spec: EpisodeSpec) -> tuple[Question, Observation, np.ndarray | None]:
    """Read such a message, trusting nothing; the instruction is None where only its hash was sent.

    Raises:
        ProtocolError: It is too long, unreadable, or its arrays are not of the spec's sizes.
    """
    shapes = {
        _IMAGES: (np.uint8, (len(spec.image_keys), *spec.image_shape)),
        _PROPRIO: (np.float32, (spec.proprio_dim,)),
    }
    optional = {_TOKENS: (np.int64, (spec.num_tokens,))}
    question, arrays = _decode(Question, data, shapes, optional)
    tokens = arrays.get(_TOKENS)
    if max(question.chunk, question.domain_id) >= 1 << 31:
        raise ProtocolError(f"Chunk {question.chunk} or domain {question.domain_id} is out of range.")
    if tokens is not None and (tokens.min() < 0 or name_of(tokens) != question.tokens):
        raise ProtocolError("The token ids are negative, or not those that the hash is of.")
    return question, Observation(arrays[_IMAGES], arrays[_PROPRIO]), tokens


def encode_answer(answer: Answer, chunk: Chunk) -> bytes:
    """Return the message."""
    return _encode(answer, vars(chunk))


def decode_answer(data: bytes, latents: tuple[int, int, int]) -> tuple[Answer, Chunk]:
    """Read such a message, of a chunk whose latents have this shape.

    Raises:
        ProtocolError: It is unreadable, or its arrays are of other sizes.
    """
    shapes = {"action": latents[1:], "latents": latents, "log_prob": latents[1:2]}
    answer, arrays = _decode(Answer, data, {name: (np.float32, shape) for name, shape in shapes.items()})
    return answer, Chunk(**arrays)


_Shapes = Mapping[str, tuple[type[np.generic], tuple[int, ...]]]


def _encode(header: object, arrays: Mapping[str, np.ndarray]) -> bytes:
    text = np.frombuffer(protocol.encode(header), np.uint8)
    return save({HEADER: text, **{name: np.ascontiguousarray(array) for name, array in arrays.items()}})


def _decode[T](
    kind: type[T], data: bytes, shapes: _Shapes, optional: _Shapes | None = None
) -> tuple[T, dict[str, np.ndarray]]:
    known = {**shapes, **(optional or {})}
    longest = _OVERHEAD + sum(
        np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in known.values()
    )
    if len(data) > longest:
        raise ProtocolError(f"{kind.__name__} of {len(data)} bytes; at most {longest} are read.")
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"{kind.__name__} is no safetensors file: {error!r}") from error
    header = arrays.pop(HEADER, None)
    if header is None or not shapes.keys() <= arrays.keys() <= known.keys():
        raise ProtocolError(
            f"{kind.__name__} must hold {', '.join((HEADER, *shapes))}; got {sorted(arrays)}."
        )
    for name, array in arrays.items():
        dtype, shape = known[name]
        if array.dtype != dtype or array.shape != shape:
            raise ProtocolError(
                f"{kind.__name__}: {name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} "
                f"{shape}. Start learner and actors from one config."
            )
        if not np.isfinite(array).all():
            raise ProtocolError(f"{kind.__name__}: {name} holds NaN or infinity.")
    return protocol.decode(kind, header.tobytes()), arrays
