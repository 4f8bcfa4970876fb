"""Questions of light actors to a policy server."""

from __future__ import annotations

import json
import random
import struct
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from safetensors.numpy import save

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "wire"))

from test_act import LATENTS, QUESTION, SPEC, TOKENS, observation

from bridge.wire import act
from bridge.wire.protocol import ProtocolError

from . import ODD_NUMBERS, Made, UnfitError, broken
from .words import almost, fields_of

_KINDS = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U64": "<u8", "I32": "<i4", "U32": "<u4"},
    **{"I16": "<i2", "U16": "<u2", "I8": "i1", "U8": "u1", "BOOL": "?", "C64": "<c8"},
}
_ARRAYS = {"images": ("u1", (2, 3, 4, 5)), "proprio": ("<f4", (2,)), "tokens": ("<i8", (6,))}
_LONGEST = 16 * 1024 + 120 + 8 + 48


class Questions:
    """Read by ``act.decode_question``."""

    def make(self, rng: random.Random) -> Made:
        arrays = {**vars(observation()), "tokens": TOKENS}
        header, damaged, done = QUESTION, False, []
        text = None
        if rng.random() < 0.5:
            text, damaged, changed = almost(rng, header)
            done += changed
        if rng.random() < 0.3:
            del arrays["tokens"]
        arrays[act.HEADER] = np.frombuffer(text if text is not None else _encoded(), np.uint8)
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            done.append(_change(rng, arrays))
        data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        if rng.random() < 0.2:
            return Made(broken(rng, data), True, (*done, "broken"))
        if rng.random() < 0.01:
            data += bytes(20_000)
        return Made(data, damaged, tuple(done))

    def read(self, data: bytes) -> Any:
        try:
            question, seen, tokens = act.decode_question(data, SPEC)
        except ProtocolError as error:
            raise UnfitError("refused") from error
        arrays = {"images": seen.images, "proprio": seen.proprio}
        return {**vars(question), **arrays, **({} if tokens is None else {"tokens_": tokens})}

    def reread(self, data: bytes) -> Any:
        if len(data) > _LONGEST:
            raise UnfitError("long")
        try:
            arrays = _safetensors(data)
        except (ValueError, KeyError, TypeError, struct.error, RecursionError, OverflowError) as error:
            raise UnfitError(repr(error)) from error
        if not {act.HEADER, "images", "proprio"} <= set(arrays) <= {act.HEADER, *_ARRAYS}:
            raise UnfitError("names")
        for name, (kind, shape) in _ARRAYS.items():
            array = arrays.get(name)
            if array is not None and (array.dtype, array.shape) != (np.dtype(kind), shape):
                raise UnfitError("array")
        if not np.isfinite(arrays["proprio"]).all():
            raise UnfitError("not finite")
        question = fields_of("Question", arrays.pop(act.HEADER).tobytes())
        if max(question["chunk"], question["domain_id"]) >= 2**31:
            raise UnfitError("range")
        tokens = arrays.pop("tokens", None)
        if tokens is None:
            return {**question, **arrays}
        if (tokens < 0).any() or blake2b(tokens.tobytes(), digest_size=16).hexdigest() != question["tokens"]:
            raise UnfitError("tokens")
        return {**question, **arrays, "tokens_": tokens}


class AskedServer:
    """The same, sent to a policy server's port: refused for its form, or answered.

    Args:
        channel: To a server whose policy acts as ``acts`` and chooses noughts.
        acts: Run and version of its policy.
    """

    def __init__(self, channel: grpc.Channel, acts: tuple[int, int]) -> None:
        self._call, self._acts = channel.unary_unary(f"/{act.SERVICE}/{act.ACT}"), acts
        self._plain = Questions()

    def make(self, rng: random.Random) -> Made:
        return self._plain.make(rng)

    def read(self, data: bytes) -> Any:
        call: Any = self._call.future(data, timeout=60)
        code = call.code()
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            raise UnfitError("INVALID_ARGUMENT")
        if code is grpc.StatusCode.OK:
            answer, chunk = act.decode_answer(call.result(), LATENTS)
            assert (answer.run, answer.version) == self._acts
            assert not chunk.latents.any()
        else:
            assert (code, call.details()) == (grpc.StatusCode.NOT_FOUND, act.UNKNOWN_TOKENS), code
        return "answered"

    def reread(self, data: bytes) -> Any:
        self._plain.reread(data)
        return "answered"


def _encoded() -> bytes:
    return act.protocol.encode(QUESTION)


def _change(rng: random.Random, arrays: dict[str, np.ndarray]) -> str:
    """Change an array, in what it holds or in form; return how."""
    how, name = rng.choice(("lacks", "form", "form", "number", "number", "more")), rng.choice(list(arrays))
    if how == "lacks" and len(arrays) > 1:
        del arrays[name]
    elif how == "more":
        arrays[rng.choice(("x", "latents", "tokens"))] = np.zeros(rng.randrange(9), np.float32)
    elif how == "form":
        shape = [rng.randrange(6) for _ in range(rng.randrange(5))]
        kind = rng.choice((np.uint8, np.int64, np.float32, np.float16, np.bool_, np.float64))
        arrays[name] = np.full(shape, rng.randrange(3)).astype(kind)
    elif arrays[name].size:
        changed = arrays[name].copy()
        number = rng.choice(ODD_NUMBERS) if changed.dtype.kind == "f" else rng.randrange(128)
        changed.reshape(-1)[rng.randrange(changed.size)] = number
        if changed.dtype == np.int64 and rng.random() < 0.3:
            changed[0] = -1
        arrays[name] = changed
    return how


def _safetensors(data: bytes) -> dict[str, np.ndarray]:
    """Read a safetensors file as its format is described: a length, a JSON header, bytes without holes."""
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8:
        raise UnfitError("header")
    header = json.loads(data[8 : 8 + length].decode())
    header.pop("__metadata__", None)
    content, arrays, end = data[8 + length :], {}, 0
    for name, about in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = about["data_offsets"]
        kind = np.dtype(_KINDS[about["dtype"]])
        if first != end or last - first != kind.itemsize * int(np.prod(about["shape"], dtype=object)):
            raise UnfitError("offsets")
        arrays[name] = np.frombuffer(content[first:last], kind).reshape(about["shape"])
        end = last
    if end != len(content):
        raise UnfitError("bytes that are nobody's")
    return arrays
