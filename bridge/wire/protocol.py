"""What actor and learner agree on beside LeRobot's own messages and the action row (``record.py``).

The learner's port serves two services: LeRobot's ``LearnerService``, for parameters and episodes, and
``SERVICE``, by which an actor registers and asks for the episode to play. The messages of the second are JSON
objects of these dataclasses' fields.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from importlib.metadata import version
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

MESSAGE_ID_KEY = "pirl-message-id"
"""Metadata key of a ``SendTransitions`` call that carries exactly one message: ``<actor>-<message>``."""

ACTOR_KEY = "pirl-actor"
"""Metadata key of a ``StreamParameters`` call: whose it is. While it is open the actor is there."""

STEP_INFO_HEADER = ("executed", "success", "seed_low", "seed_high", "task", "init_state")
"""A chunk's ``discrete_penalty``, which LeRobot's actor passes on: these numbers, then each step's reward."""

OBS_DOMAIN_ID = "observation.domain_id"
"""Observation key of the embodiment, beside those that LeRobot has."""

PACKAGE_VERSION = version("pirl-jax")

SERVICE = "pirl.Assignments"
REGISTER, NEXT = "Register", "Next"

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
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{kind.__name__} is no JSON: {error}") from error
    types = get_type_hints(kind)
    if not isinstance(fields, dict) or fields.keys() != types.keys():
        raise ProtocolError(f"{kind.__name__} must be an object of {', '.join(types)}.")
    for name, value in fields.items():
        _check(f"{kind.__name__}.{name}", value, types[name])
    return kind(**fields)


def _check(name: str, value: Any, expected: Any) -> None:
    choices = get_args(expected) if isinstance(expected, UnionType) else (expected,)
    kinds = tuple(get_origin(choice) or choice for choice in choices)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ProtocolError(f"{name} is {type(value).__name__}.")
    if isinstance(value, list):
        for item in value:
            _check(f"{name}[]", item, get_args(expected)[0])
    if isinstance(value, int) and not 0 <= value < 1 << 63:
        raise ProtocolError(f"{name} is out of range: {value}.")
    if isinstance(value, dict):
        for key in value:
            _check(f"a name in {name}", key, str)
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        raise ProtocolError(f"{name} is over {_MAX_TEXT} characters long.")
    if isinstance(value, str) and not value.isprintable():  # it goes into a log and into a status line
        raise ProtocolError(f"{name} is not printable.")
