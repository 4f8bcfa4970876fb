"""The service by which actors register and are told what to play, on the learner's port."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import grpc

from bridge.wire import protocol
from bridge.wire.policy_servers import PolicyServers
from bridge.wire.protocol import (
    ActorStatus,
    Alive,
    Offer,
    Offered,
    ProtocolError,
    Registered,
    Registration,
    Reply,
    Request,
    Status,
)
from bridge.wire.refusal import refusal
from pirl_jax.rollout.assignments import Assignments
from pirl_jax.rollout.behaviour import updates_of

logger = logging.getLogger(__name__)

GRACE_S = 10.0
"""Seconds after which an actor without a parameter stream counts as gone."""

_LONGEST_WAIT_S = 10.0
_POLL_S = 0.5
_NAMED_IN_STATUS, _LONGEST_NAME = 512, 32  # it must stay below MAX_JSON_BYTES


@dataclass(frozen=True)
class Goal:
    """What a learner is after, for whoever asks how it stands; 0: not known."""

    updates: int = 0
    """Of the whole run."""
    episodes: int = 0
    """Of an update."""


NO_GOAL = Goal()


@dataclass
class _Actor:
    name: str
    seen: float
    episodes: int = 0
    version: int | None = None


class AssignmentService:
    """Registers actors, assigns their episodes, and takes back what vanished actors were playing.

    Args:
        assignments: The run's.
        run: Id of this process, see `protocol.Registered`.
        agreement: What an actor must have in common with the learner: dotted name → JSON value.
        max_actors: Registered at once, those that are gone and not yet forgotten included.
        stopping: Set when the server stops: all waiting ends.
        goal: Of the learner.
        policy_servers: Those that are processes of their own; None: there are none.
    """

    def __init__(
        self,
        assignments: Assignments,
        run: int,
        agreement: Mapping[str, Any],
        max_actors: int,
        stopping: threading.Event,
        goal: Goal = NO_GOAL,
        policy_servers: PolicyServers | None = None,
    ) -> None:
        self._assignments, self._run = assignments, run
        self._agreement = json.loads(json.dumps(agreement))  # tuples are lists over there
        self._max_actors, self._stopping, self._goal = max_actors, stopping, goal
        self._policy_servers = policy_servers
        self._actors: dict[str, _Actor] = {}
        self._streams: Counter[str] = Counter()  # open ones, of actors that have yet to register too
        self._lock = threading.Lock()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server is given."""
        methods = {
            protocol.REGISTER: self._register,
            protocol.NEXT: self._next,
            protocol.ALIVE: self._alive,
            protocol.OFFER: self._offer,
            protocol.STATUS: lambda data, context: protocol.encode(self.status()),
        }
        return grpc.method_handlers_generic_handler(
            protocol.SERVICE,
            {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()},
        )

    def stream_opened(self, actor: str) -> None:
        """Note that a parameter stream of the actor's is open."""
        with self._lock:
            self._streams[actor] += 1

    def stream_closed(self, actor: str) -> None:
        """Note that one has ended."""
        with self._lock:
            self._streams[actor] -= 1
            if not self._streams[actor]:
                del self._streams[actor]
        self._touch(actor)

    def taken(self, actor: str) -> None:
        """Note that an episode of the actor's was taken."""
        with self._lock:
            if actor in self._actors:
                self._actors[actor].episodes += 1
        self._touch(actor)

    def status(self) -> Status:
        """Return how the run stands, with those first who were heard of last."""
        standing, now = self._assignments.standing(self._goal.episodes), time.monotonic()
        servers = [] if self._policy_servers is None else self._policy_servers.addresses()
        with self._lock:
            actors = sorted(self._actors.values(), key=lambda actor: -actor.seen)[:_NAMED_IN_STATUS]
            shown = [
                ActorStatus(
                    actor.name[:_LONGEST_NAME],
                    max(0, round(1000 * (now - actor.seen))),
                    actor.episodes,
                    actor.version,
                )
                for actor in actors
            ]
        return Status(
            run=self._run,
            update=0 if standing.version is None else updates_of(standing.version),
            updates=self._goal.updates,
            awaited=self._goal.episodes,
            actors=shown,
            servers=servers[:_NAMED_IN_STATUS],
            **asdict(standing),
        )

    def _register(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        registration = self._read(Registration, data, context)
        if reason := self._refusal(registration):
            logger.warning("Refused actor %s (%s): %s", registration.name, context.peer(), reason)
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, reason)
        self._release_the_gone()
        with self._lock:
            if registration.actor not in self._actors:
                if len(self._actors) >= self._max_actors:
                    context.abort(
                        grpc.StatusCode.RESOURCE_EXHAUSTED, f"The learner serves {self._max_actors} actors."
                    )
                self._actors[registration.actor] = _Actor(registration.name, time.monotonic())
                logger.info("Actor %s has registered (%s).", registration.name, context.peer())
        self._touch(registration.actor)
        return protocol.encode(Registered(self._run, self._server_of(registration.actor, context)))

    def _refusal(self, registration: Registration) -> str | None:
        package, row_format = registration.package, registration.row_format
        return refusal("actor", package, row_format, registration.agreement, self._agreement)

    def _server_of(self, actor: str, context: grpc.ServicerContext) -> str:
        """Return where an actor has its chunks chosen, as ``protocol.Registered`` says it."""
        if self._policy_servers is None:
            return ""
        address = self._policy_servers.choose(actor)
        if address is None:
            context.abort(
                grpc.StatusCode.UNAVAILABLE,
                "No policy server is there: start python -m pirl_jax.serve with the learner's config",
            )
            raise AssertionError("abort raises")
        return address

    def _offer(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        offer = self._read(Offer, data, context)
        reason = (
            "This learner has no use for policy servers. Set algorithm.inference=served and "
            "algorithm.serve.mode=process."
            if self._policy_servers is None
            else self._policy_servers.offer(offer)
        )
        if reason is not None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, reason)
        return protocol.encode(Offered(self._run))

    def _alive(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        self._touch(self._read(Alive, data, context).actor)
        return b"{}"

    def _next(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        request = self._read(Request, data, context)
        if request.run != self._run or not self._touch(request.actor):
            context.abort(grpc.StatusCode.NOT_FOUND, "This actor is not registered with this learner.")
        self._assignments.keep(request.actor, request.holds)
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while context.is_active() and time.monotonic() < deadline:
            if self._stopping.is_set():
                context.abort(grpc.StatusCode.UNAVAILABLE, "The learner is stopping.")
            self._release_the_gone()
            assignment = self._assignments.next(request.actor, _POLL_S)
            self._touch(request.actor)
            if assignment is not None:
                with self._lock:
                    if request.actor in self._actors:
                        self._actors[request.actor].version = assignment.version
                return protocol.encode(Reply(**asdict(assignment)))
        return protocol.encode(Reply())

    def _read[T](self, kind: type[T], data: bytes, context: grpc.ServicerContext) -> T:
        try:
            return protocol.decode(kind, data)
        except ProtocolError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise  # not reached: abort raises

    def _touch(self, actor: str) -> bool:
        with self._lock:
            if actor not in self._actors:
                return False
            self._actors[actor].seen = time.monotonic()
            return True

    def _release_the_gone(self) -> None:
        now = time.monotonic()
        with self._lock:
            gone = [
                key
                for key, actor in self._actors.items()
                if key not in self._streams and now - actor.seen > GRACE_S
            ]
            names = [self._actors.pop(key).name for key in gone]
        for key, name in zip(gone, names):
            if self._policy_servers is not None:
                self._policy_servers.leave(key)
            count = self._assignments.keep(key, ())
            logger.warning("Actor %s is gone; what it was playing (%d) is played again.", name, count)
