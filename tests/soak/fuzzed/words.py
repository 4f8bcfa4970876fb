"""JSON messages: of actors and policy servers to the learner, and its own answers."""

from __future__ import annotations

import json
import random
from typing import Any

import grpc

from bridge.wire import protocol
from bridge.wire.protocol import ActorStatus, ProtocolError
from bridge.wire.record import FORMAT

from . import Made, UnfitError, broken

TEXT, NATURAL, TRUTH, OBJECT = "text", "natural", "truth", "object"
MAYBE = (NATURAL, None)
FORMS: dict[str, dict[str, Any]] = {
    "Registration": {
        **dict.fromkeys(("actor", "name", "package"), TEXT),
        "row_format": NATURAL,
        "agreement": OBJECT,
    },
    "Registered": {"run": NATURAL, "server": TEXT},
    "Offer": {
        **dict.fromkeys(("server", "address", "package"), TEXT),
        "row_format": NATURAL,
        "agreement": OBJECT,
    },
    "Offered": {"run": NATURAL},
    "Request": {"actor": TEXT, "run": NATURAL, "holds": [NATURAL]},
    "Reply": dict.fromkeys(("number", "seed", "noise_key", "task", "place", "version"), MAYBE),
    "Alive": {"actor": TEXT},
    "ActorStatus": {"name": TEXT, "silent_ms": NATURAL, "episodes": NATURAL, "version": MAYBE},
    "Status": {
        **dict.fromkeys(("run", "update", "updates", "arrived", "awaited", "open", "playing"), NATURAL),
        **{"version": MAYBE, "actors": ["ActorStatus"], "evaluation": NATURAL, "evaluated": NATURAL},
        "servers": [TEXT],
    },
    "Question": {
        **{"actor": TEXT, "tokens": TEXT, "noise_free": TRUTH},
        **dict.fromkeys(("domain_id", "noise_key", "chunk", "run", "version"), NATURAL),
    },
}
"""Fields of every message, and what they may be, as ``bridge.wire.protocol`` and ``act`` describe them."""

RIGHT = (
    protocol.Registration("a", "name", protocol.PACKAGE_VERSION, FORMAT, {"noise": 1}),
    protocol.Offer("s", "127.0.0.1:1", protocol.PACKAGE_VERSION, FORMAT, {"noise": 1}),
    protocol.Request("a", 1, [3, 4]),
    protocol.Alive("a"),
    protocol.Registered(3, ""),
    protocol.Offered(3),
    protocol.Reply(1, 2, 3, 4, 5, 6),
    protocol.Reply(),
    protocol.Status(7, 3, 10, 4, 2, 64, 12, 10, [ActorStatus("0", 250, 9, None)], 50, 9, ["127.0.0.1:2"]),
)
METHODS = (protocol.REGISTER, protocol.OFFER, protocol.NEXT, protocol.ALIVE)
FORESEEN = (
    *(grpc.StatusCode.OK, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND),
    *(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED),
)
"""Answers of a service to a message that it can read; UNKNOWN is that to an exception that nobody foresaw."""


class Words:
    """Read by ``protocol.decode``. The first byte of what is made here says which kind it should be."""

    def make(self, rng: random.Random) -> Made:
        kind = rng.randrange(len(RIGHT))
        data, damaged, done = almost(rng, RIGHT[kind])
        return Made(bytes([kind]) + data, damaged, done)

    def read(self, data: bytes) -> Any:
        try:
            read = protocol.decode(type(RIGHT[data[0]]), data[1:])
        except ProtocolError as error:
            raise UnfitError("refused") from error
        return json.loads(protocol.encode(read))

    def reread(self, data: bytes) -> Any:
        return fields_of(type(RIGHT[data[0]]).__name__, data[1:])


class AskedLearner:
    """The same, sent to a learner's port: refused for its form, or answered in a way that was foreseen."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._calls = [channel.unary_unary(f"/{protocol.SERVICE}/{method}") for method in METHODS]

    def make(self, rng: random.Random) -> Made:
        kind = rng.randrange(len(METHODS))
        data, damaged, done = almost(rng, RIGHT[kind])
        return Made(bytes([kind]) + data, damaged, done)

    def read(self, data: bytes) -> Any:
        call: Any = self._calls[data[0]].future(data[1:], timeout=60)
        if call.code() is grpc.StatusCode.INVALID_ARGUMENT:
            raise UnfitError("INVALID_ARGUMENT")
        assert call.code() in FORESEEN, (call.code(), call.details())
        return "answered"

    def reread(self, data: bytes) -> Any:
        fields_of(type(RIGHT[data[0]]).__name__, data[1:])
        return "answered"


def almost(rng: random.Random, message: Any) -> tuple[bytes, bool, tuple[str, ...]]:
    """Return a message's bytes with parts that are others, too many, or lacking; and what was done."""
    fields, done = json.loads(protocol.encode(message)), []
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        done.append(rng.choice(("other", "other", "inner", "more", "fewer")))
        if done[-1] == "more":
            fields[rng.choice(("x", "", "run", "name"))] = _json(rng)
        elif fields and done[-1] == "fewer":
            del fields[rng.choice(list(fields))]
        elif fields:
            name = rng.choice(list(fields))
            value = fields[name]
            if done[-1] == "inner" and value and isinstance(value, list):
                value[0] = _json(rng)
            elif done[-1] == "inner" and isinstance(value, dict):
                value[rng.choice(("y", "a\nb", "k" * 257))] = _json(rng)
            else:
                fields[name] = _json(rng)
    content: Any = rng.choice(([fields], None, 3, "text")) if rng.random() < 0.02 else fields
    data = json.dumps(content, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.01:
        data = data[:-1] + b" " * protocol.MAX_JSON_BYTES + data[-1:]
    elif rng.random() < 0.01:
        data = data.replace(b"3", b"[" * rng.choice((100, 100_000)), 1)
    elif rng.random() < 0.15:
        return broken(rng, data), True, (*done, "broken")
    return data, False, tuple(done)


def _json(rng: random.Random, depth: int = 2) -> Any:
    if depth and rng.random() < 0.2:
        inner = [_json(rng, depth - 1) for _ in range(rng.randrange(3))]
        return inner if rng.random() < 0.5 else {rng.choice(("a", "b\n", "", "é")): value for value in inner}
    plain = (
        None,
        True,
        False,
        0,
        1,
        7,
        -1,
        (1 << 63) - 1,
        1 << 63,
        10**400,
        1.0,
        0.5,
        float("nan"),
        float("inf"),
    )
    texts = ("", "a", "127.0.0.1:1", "a\nb", "\x1b[31m", "\u202e", "\ud800", "é", "x" * 256, "x" * 257)
    return rng.choice((*plain, *texts))


def fields_of(form: str, data: bytes) -> dict[str, Any]:
    """Read a message by the table of its fields.

    Raises:
        UnfitError: It is not what the table says.
    """
    if len(data) > 1 << 18:
        raise UnfitError("long")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnfitError("no JSON") from error
    _check(fields, form)
    try:  # NaN and infinity are no JSON, wherever they are
        json.dumps(fields, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise UnfitError("not finite") from error
    return fields


def _check(value: Any, form: Any) -> None:
    if isinstance(form, list):
        right = type(value) is list
        for item in value if right else ():
            _check(item, form[0])
    elif form in FORMS:
        right = type(value) is dict and set(value) == set(FORMS[form])
        for name, inner in FORMS[form].items() if right else ():
            _check(value[name], inner)
    elif form == OBJECT:
        right = type(value) is dict
        for name in value if right else ():
            _check(name, TEXT)
    elif form == MAYBE:
        right = value is None or (type(value) is int and 0 <= value < 2**63)
    elif form == NATURAL:
        right = type(value) is int and 0 <= value < 2**63
    elif form == TRUTH:
        right = type(value) is bool
    else:
        right = type(value) is str and len(value) <= 256 and value.isprintable()
    if not right:
        raise UnfitError(f"{form}: {value!r}"[:200])
