"""What the learner tells this actor to play."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NoReturn

import grpc

from bridge.wire import protocol, record
from bridge.wire.protocol import Alive, Registered, Registration, Reply, Request
from pirl_jax.rollout.assignments import Assignment

_CALL_TIMEOUT_S = 30.0
"""Longer than the learner lets a request for an episode wait."""
_REMIND_S = 60.0
_SAY_EVERY_S = 5.0
_POLL_S = 0.2
"""How long an actor that waits may take to notice that it is to stop."""

log = logging.getLogger(__name__)


class AssignedEpisodes:
    """Registers this actor with its learner and asks for one episode after the other.

    Everything waits for the learner for as long as it takes. What cannot be waited for ends the process, by
    ``SystemExit``: LeRobot's actor catches errors, and exits with 0.

    Args:
        channel: A plain one to the learner.
        actor: Id of this process, under which its episodes and its parameter stream run too.
        stop: Set once the actor is to stop: the learner may then have nothing to play for minutes.
        wait: Called with a reason after each failure; waits, and returns False once the actor is to stop.
        recovered: Called after each success.

    Attributes:
        actor: As given.
        run: Id of the learner's process; 0 before registration.
        server: Address of the policy server that acts for this actor; "" is the learner's own.
        current: What is being played.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        actor: str,
        stop: threading.Event,
        wait: Callable[[str], bool],
        recovered: Callable[[], None],
    ) -> None:
        self._register = channel.unary_unary(f"/{protocol.SERVICE}/{protocol.REGISTER}")
        self._next = channel.unary_unary(f"/{protocol.SERVICE}/{protocol.NEXT}")
        self._alive = channel.unary_unary(f"/{protocol.SERVICE}/{protocol.ALIVE}")
        self._said, self._saying = 0.0, None
        self.actor, self._stop = actor, stop
        self._wait, self._recovered = wait, recovered
        self._name, self._agreement = "", {}
        self._held: deque[int] = deque()
        self.run, self.server = 0, ""
        self.current: Assignment | None = None

    def register(self, name: str, agreement: Mapping[str, Any]) -> None:
        """Introduce this actor to the learner.

        Args:
            name: For people.
            agreement: What must be the same at the learner: dotted name → JSON value.

        Raises:
            SystemExit: The learner refuses it, and says why; or the actor was told to stop.
        """
        self._name, self._agreement = name, dict(agreement)
        message = Registration(self.actor, name, protocol.PACKAGE_VERSION, record.FORMAT, self._agreement)
        registered = self._ask(self._register, message, Registered)
        self.run, self.server = registered.run, registered.server

    def register_again(self) -> None:
        """Introduce this actor once more: the learner may send it to another policy server.

        Raises:
            SystemExit: As for :meth:`register`.
        """
        self.register(self._name, self._agreement)

    def next(self) -> Assignment:
        """Return the episode to play, waiting until the learner wants one.

        Raises:
            SystemExit: The learner refuses this actor; or the actor was told to stop.
        """
        reminded = time.monotonic()
        while True:
            reply = self._ask(self._next, Request(self.actor, self.run, list(self._held)), Reply)
            fields = asdict(reply)
            if reply.number is not None:
                self._held.append(reply.number)
                self.current = Assignment(**fields)
                return self.current
            if time.monotonic() - reminded > _REMIND_S:
                reminded = time.monotonic()
                log.info("Waiting for the learner to want another episode.")

    def say_alive(self) -> None:
        """Tell the learner that this actor goes on playing: now and then, and without waiting."""
        if time.monotonic() - self._said > _SAY_EVERY_S:
            self._said = time.monotonic()
            # It would be cancelled if nobody kept it; what becomes of it does not matter.
            self._saying = self._alive.future(protocol.encode(Alive(self.actor)), timeout=_CALL_TIMEOUT_S)

    def acknowledged(self) -> None:
        """Note that the oldest episode that was not acknowledged now is, or has been given up."""
        if self._held:
            self._held.popleft()

    def _result(self, pending: grpc.Future) -> bytes:
        while True:
            try:
                return pending.result(_POLL_S)
            except grpc.FutureTimeoutError:
                if self._stop.is_set():
                    pending.cancel()
                    stopped()

    def _ask[T](self, call: Any, message: Any, kind: type[T]) -> T:
        while True:
            try:
                pending = call.future(protocol.encode(message), timeout=_CALL_TIMEOUT_S)
                reply = protocol.decode(kind, self._result(pending))
            except grpc.RpcError as error:
                code, details = error.code(), error.details()
                if code is grpc.StatusCode.NOT_FOUND and isinstance(message, Request):
                    log.info("The learner is another process now; registering again.")
                    self.register_again()
                    message = Request(self.actor, self.run, list(self._held))
                    continue
                if code is grpc.StatusCode.UNIMPLEMENTED:
                    details = (
                        "the learner assigns no episodes: it has another version of pirl-jax, or is none"
                    )
                if code in (
                    grpc.StatusCode.FAILED_PRECONDITION,
                    grpc.StatusCode.INVALID_ARGUMENT,
                    grpc.StatusCode.UNIMPLEMENTED,
                    grpc.StatusCode.UNAUTHENTICATED,
                ):
                    refuse(f"the learner refused this actor: {details}")
                if not self._wait(f"{code.name} {details}"):
                    stopped()
            except protocol.ProtocolError as error:
                refuse(f"the learner's answer cannot be read: {error}")
            else:
                self._recovered()
                return reply


def refuse(reason: str) -> NoReturn:
    """End this actor with one line and status 1.

    Raises:
        SystemExit: Always.
    """
    log.error("%s", reason)
    sys.exit(f"error: {reason}")


def stopped() -> NoReturn:
    """End this actor, which was told to stop.

    Raises:
        SystemExit: Always.
    """
    log.info("Stopped while waiting for the learner.")
    sys.exit(0)


class Newest:
    """The newest parameter message that nobody has taken yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._message: bytes | None = None

    def put(self, message: bytes) -> None:
        """Replace it."""
        with self._changed:
            self._message = message
            self._changed.notify_all()

    def take(self, timeout: float) -> bytes | None:
        """Return it, waiting for one; None after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._message is not None, timeout)
            message, self._message = self._message, None
            return message
