"""What actor and learner agree on beside LeRobot's own messages and the action row (``record.py``).

The learner's port serves two services: LeRobot's ``LearnerService``, for parameters and episodes, and
``SERVICE``, by which an actor registers and asks for the episode to play, and anyone asks how the run stands.
The messages of the second are JSON objects of these dataclasses' fields.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

MESSAGE_ID_KEY = "pirl-message-id"
"""Metadata key of a ``SendTransitions`` call that carries exactly one message: ``<actor>-<message>``."""

ACTOR_KEY = "pirl-actor"
"""Metadata key of a ``StreamParameters`` call: whose it is. While it is open the actor is there."""

NOTICES_KEY = "pirl-notices"
"""Metadata key of a ``StreamParameters`` call whose messages need hold no parameters."""

STEP_INFO_HEADER = ("executed", "success", "seed_low", "seed_high", "task", "init_state")
"""A chunk's ``discrete_penalty``, which LeRobot's actor passes on: these numbers, then each step's reward."""

OBS_DOMAIN_ID = "observation.domain_id"
"""Observation key of the embodiment, beside those that LeRobot has."""

PACKAGE_VERSION = version("pirl-jax")

SERVICE = "pirl.Assignments"
REGISTER, NEXT, ALIVE, STATUS, OFFER = "Register", "Next", "Alive", "Status", "Offer"

MAX_JSON_BYTES = 1 << 18
_MAX_TEXT = 256


class ProtocolError(ValueError):
    """A message is not what it should be; the text says why."""


@dataclass(frozen=True)
class Registration:
    """An actor's first message."""

    actor: str
    """Unique to the process."""
    name: str
    """For people: ``env.actor_id``."""
    package: str
    """Version of this package."""
    row_format: int
    """Of the action rows (``record.FORMAT``)."""
    agreement: dict[str, Any]
    """What must be the same at the learner: dotted name → value."""


@dataclass(frozen=True)
class Registered:
    """The learner's answer."""

    run: int
    """Id of the learner's process, to be stamped on every row."""
    server: str
    """Address of the policy server that acts for this actor, ``host:port``; "" is the learner's own."""


@dataclass(frozen=True)
class Offer:
    """A policy server's message: it acts for whoever is sent to it. Repeated while it is there."""

    server: str
    """Unique to the process."""
    address: str
    """Where actors reach it, ``host:port``."""
    package: str
    """Version of this package."""
    row_format: int
    """Of the action rows (``record.FORMAT``)."""
    agreement: dict[str, Any]
    """What must be the same at the learner: dotted name → value."""


@dataclass(frozen=True)
class Offered:
    """The learner's answer."""

    run: int
    """Id of the learner's process."""


@dataclass(frozen=True)
class Request:
    """An actor asks for an episode."""

    actor: str
    run: int
    holds: list[int]
    """Numbers that it was given and whose episodes the learner has not acknowledged."""


@dataclass(frozen=True)
class Reply:
    """An episode to play, ``assignments.Assignment``; all None: not yet, ask again."""

    number: int | None = None
    seed: int | None = None
    noise_key: int | None = None
    task: int | None = None
    place: int | None = None
    version: int | None = None


@dataclass(frozen=True)
class Alive:
    """An actor goes on playing: it has chosen a chunk."""

    actor: str


@dataclass(frozen=True)
class ActorStatus:
    """An actor, as the learner knows it."""

    name: str
    """``env.actor_id``, cut off where it is long."""
    silent_ms: int
    """Milliseconds since it was heard of."""
    episodes: int
    """Of its own that this learner has taken."""
    version: int | None
    """Of the parameters that its newest episode is played with; None: it was given none yet."""


@dataclass(frozen=True)
class Status:
    """How a run stands: the answer to ``STATUS``, which anyone may ask and which changes nothing."""

    run: int
    """Id of the learner's process."""
    update: int
    """Updates that are done."""
    updates: int
    """Of the whole run; 0: not known."""
    version: int | None
    """Newest of the parameters; None before the first."""
    arrived: int
    """Episodes for the next update that are there."""
    awaited: int
    """Episodes of an update."""
    open: int
    """Episodes handed out that no version has learned from."""
    playing: int
    """Episodes handed out that have not arrived, those of an evaluation included."""
    actors: list[ActorStatus]
    """Who has registered and is not gone."""
    evaluation: int = 0
    """Episodes of the newest evaluation; 0 where there has been none."""
    evaluated: int = 0
    """Those of them that are over."""
    servers: list[str] = field(default_factory=list)
    """Addresses of the policy servers of other processes that are there."""


def encode(message: Any) -> bytes:
    """Return a message of one of these classes as JSON."""
    return json.dumps(dataclasses.asdict(message), allow_nan=False).encode()


def decode[T](kind: type[T], data: bytes) -> T:
    """Read a message of one of these classes, trusting nothing.

    Raises:
        ProtocolError: It is too long, no JSON object of exactly the class's fields, or a field has another
            type.
    """
    if len(data) > MAX_JSON_BYTES:
        raise ProtocolError(f"{kind.__name__} of {len(data)} bytes; at most {MAX_JSON_BYTES} are read.")
    try:
        fields = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{kind.__name__} is no JSON: {error}") from error
    return _read_object(kind.__name__, fields, kind)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON's")


def _read_object[T](name: str, fields: Any, kind: type[T]) -> T:
    types = get_type_hints(kind)
    if not isinstance(fields, dict) or fields.keys() != types.keys():
        raise ProtocolError(f"{name} must be an object of {', '.join(types)}.")
    return kind(**{field: _read(f"{name}.{field}", value, types[field]) for field, value in fields.items()})


def _read(name: str, value: Any, expected: Any) -> Any:
    if isinstance(expected, type) and dataclasses.is_dataclass(expected):
        return _read_object(name, value, expected)
    choices = get_args(expected) if isinstance(expected, UnionType) else (expected,)
    kinds = tuple(get_origin(choice) or choice for choice in choices)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ProtocolError(f"{name} is {type(value).__name__}.")
    if isinstance(value, list):
        return [_read(f"{name}[]", item, get_args(expected)[0]) for item in value]
    if isinstance(value, int) and not 0 <= value < 1 << 63:
        raise ProtocolError(f"{name} is out of range: {value}.")
    if isinstance(value, dict):
        for key in value:
            _read(f"a name in {name}", key, str)
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        raise ProtocolError(f"{name} is over {_MAX_TEXT} characters long.")
    if isinstance(value, str) and not value.isprintable():  # it goes into a log and into a status line
        raise ProtocolError(f"{name} is not printable.")
    return value
