"""LeRobot's gRPC `LearnerService`, for any number of stock actors.

The wire is LeRobot's (`lerobot/transport/services.proto`). Two kinds of sender are served alike: the stock
one, which keeps one `SendTransitions` stream open for all its messages, and one that makes a call per message
with an id in its metadata, takes the reply as the receipt, and sends again until it has it.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import TransferState, send_bytes_in_chunks

from bridge.trust.listener import Listener
from bridge.wire.act_service import ActService
from bridge.wire.assignment_service import NO_GOAL, AssignmentService, Goal
from bridge.wire.broadcast import Broadcast, serialise
from bridge.wire.inbox import Counts, Inbox, assemble
from bridge.wire.policy_servers import PolicyServers
from bridge.wire.protocol import ACTOR_KEY, MESSAGE_ID_KEY, NOTICES_KEY
from bridge.wire.reminder import Reminder
from bridge.wire.status_file import StatusFile
from pirl_jax.recipe import SecurityConfig
from pirl_jax.rollout.assignments import Assignments, Verdict
from pirl_jax.rollout.episode import Episode, outcome_of
from pirl_jax.rollout.evaluation import is_evaluation

logger = logging.getLogger(__name__)

PORT_KEY = "algorithm.actor_learner_config.learner_port"
_REMEDY = f"Another learner may be there: set {PORT_KEY} to a free port, for learner and actors alike."

_MAX_ID_LENGTH = 256
_OPEN = SecurityConfig()

# protobuf builds its classes at import time: invisible to a type checker.
_Empty: Any = services_pb2.Empty  # type: ignore[attr-defined]
_Parameters: Any = services_pb2.Parameters  # type: ignore[attr-defined]


class LearnerServer:
    """Receives episodes from actors and broadcasts parameters to them.

    A context manager: the port is bound on entry and released on exit. One thread trains (`get`
    and `publish`); everything else runs on gRPC's threads, decoding included.

    A message that cannot be used (broken, oversized, never assigned, cut off) is dropped alone: it is
    counted by its reason, logged once per reason and minute, and neither its stream nor its neighbours
    suffer. It is acknowledged too, since sending it again would change nothing; only an oversized message in
    a call of its own is answered with INVALID_ARGUMENT. (RESOURCE_EXHAUSTED is gRPC's own answer when too
    many calls are open, and worth another try.)

    Args:
        host: Address at which actors find it; it listens there, or where `security` says.
        port: Port to listen on; 0 picks a free one, see the attribute `port`.
        decode: Message bytes → episode; raises `TransitionError` for a message to drop.
        assignments: Of the run: they are handed out, and only episodes that were assigned are queued, which
            bounds the queue.
        agreement: What an actor must have in common with the learner, see `AssignmentService`.
        max_actors: Actors served at once. The streams of actors that have left may linger for a while, so
            twice as many are tolerated.
        max_message_bytes: Longest message taken, see `EpisodeSpec.max_message_bytes`.
        goal: What the learner is after, for whoever asks how the run stands.
        policy: A policy server on the same port: the id of this process, and the event that is set when the
            server stops → its service.
        policy_servers: Where the policy servers of other processes offer themselves; None: there are none.
        status_file: Where it is written how the run stands; None: nowhere.
        security: Who may connect, and how.

    Raises:
        ValueError: If a limit is not positive, or token or certificates are missing or cannot be used.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        decode: Callable[[bytes], Episode],
        assignments: Assignments,
        agreement: Mapping[str, Any],
        max_actors: int = 16,
        max_message_bytes: int = 256 * 1024 * 1024,
        goal: Goal = NO_GOAL,
        policy: Callable[[int, threading.Event], ActService] | None = None,
        policy_servers: PolicyServers | None = None,
        status_file: Path | None = None,
        security: SecurityConfig = _OPEN,
    ):
        limits = {"max_actors": max_actors, "max_message_bytes": max_message_bytes}
        for name, limit in limits.items():
            if limit < 1:
                raise ValueError(f"LearnerServer: {name} must be at least 1; got {limit}.")
        # An actor holds four calls at a time, and as many again while an earlier connection of its own is
        # still dying; Ready and a newcomer's first look at the parameters come on top.
        calls = 8 * max_actors + 4
        self._listener = Listener(security, host, port, calls, "learner-server", _REMEDY)
        self.port = port
        self._stopping = threading.Event()
        self._counts = Counts()
        self.run = 1 + secrets.randbelow(2**32 - 1)  # 0 is nobody's
        self._assignments = assignments
        self._awaits_updates, self._status_file = goal.episodes > 0, status_file
        self._service = AssignmentService(
            assignments, self.run, agreement, 2 * max_actors, self._stopping, goal, policy_servers
        )
        lose, take = assignments.lose, self._service.taken
        self._inbox = Inbox(decode, self._accept, self._counts, self._stopping, lose, take)
        self._broadcast, self._notices = Broadcast(), Broadcast()
        self._servicer = _Servicer(
            inbox=self._inbox,
            broadcast=self._broadcast,
            notices=self._notices,
            service=self._service,
            counts=self._counts,
            stopping=self._stopping,
            max_actors=max_actors,
            max_message_bytes=max_message_bytes,
        )
        self._handlers = [
            self._service.handler(),
            *([policy(self.run, self._stopping).handler()] if policy else []),
        ]

    def __enter__(self) -> Self:
        """Bind the port and start serving.

        Raises:
            OSError: If the port is in use or the address is not this machine's.
        """
        self.port = self._listener.open(self._add)
        if self._awaits_updates:
            show = () if self._status_file is None else (StatusFile(self._status_file).write,)
            Reminder(self._service.status, self._stopping, *show).start()
        logger.info("Learner listens on %s:%d, %s.", self._listener.host, self.port, self._listener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving: open calls end with UNAVAILABLE, or are cut off after half a second."""
        self._stopping.set()
        self._broadcast.close()
        self._notices.close()
        self._listener.close()

    def get(self, timeout: float | None = None) -> Episode | None:
        """Return the oldest episode; None after `timeout` seconds without one, or once the server stops."""
        return self._inbox.get(timeout)

    def publish(self, version: int, level: float, tensors: Mapping[str, Any]) -> None:
        """Serialise the parameters once and send them to every actor, present and future.

        An actor that is still receiving an older version gets the newest one next; those in between are
        skipped. Nothing of `tensors` is needed after the return: their buffers may be donated.

        Args:
            version: Greater than every version published before.
            level: Noise level to act with from now on.
            tensors: See `bridge.wire.broadcast.serialise`.

        Raises:
            ValueError: If the version does not increase.
        """
        if version <= self._broadcast.version:
            raise ValueError(f"Policy versions must increase; got {version} after {self._broadcast.version}.")
        self._broadcast.set(version, serialise(self.run, version, level, tensors))
        self._notices.set(version, serialise(self.run, version, level, {}))

    def stats(self) -> dict[str, Any]:
        """Return what happened so far.

        Returns:
            Totals `messages`, `episodes` (queued), `duplicates`, `interactions`, `bytes_received`,
            `bytes_sent`; `dropped` by reason; and as of now `actors` (open parameter streams), `playing`
            (episodes), `queued`, `version`.
        """
        return {
            **self._counts.snapshot(),
            "actors": self._servicer.actors,
            "playing": self._assignments.playing,
            "queued": len(self._inbox),
            "version": self._broadcast.version,
        }

    def metrics(self) -> dict[str, float]:
        """Return the same, by the names of ``metrics.jsonl``: ``actor/episodes``, ``actor/dropped/gap``."""
        stats = self.stats()
        dropped = stats.pop("dropped")
        totals = stats | {f"dropped/{why}": n for why, n in dropped.items()}
        return {f"actor/{name}": n for name, n in totals.items()}

    def _add(self, server: grpc.Server) -> None:
        services_pb2_grpc.add_LearnerServiceServicer_to_server(self._servicer, server)
        server.add_generic_rpc_handlers(self._handlers)

    def _accept(self, episode: Episode) -> str | None:
        if episode.run != self.run:
            return "other_run"
        outcome = outcome_of(episode) if is_evaluation(episode.number) else None
        verdict = self._assignments.deliver(episode.number, episode.seed, outcome)
        return None if verdict is Verdict.WANTED else verdict.value


class _Servicer(services_pb2_grpc.LearnerServiceServicer):
    def __init__(
        self,
        inbox: Inbox,
        broadcast: Broadcast,
        notices: Broadcast,
        service: AssignmentService,
        counts: Counts,
        stopping: threading.Event,
        max_actors: int,
        max_message_bytes: int,
    ):
        self._inbox = inbox
        self._broadcast, self._notices = broadcast, notices
        self._service = service
        self._counts = counts
        self._stopping = stopping
        self._max_actors = max_actors
        self._max_message_bytes = max_message_bytes
        self._lock = threading.Lock()
        self._actors = 0

    @property
    def actors(self) -> int:
        return self._actors

    def Ready(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._refuse_if_stopping(context)
        return _Empty()

    def StreamParameters(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        self._refuse_if_stopping(context)
        metadata = dict(context.invocation_metadata())
        actor = str(metadata.get(ACTOR_KEY, ""))
        broadcast = self._notices if NOTICES_KEY in metadata else self._broadcast
        self._enter_actor(context)
        self._service.stream_opened(actor)
        try:
            # Without it a departed actor would be noticed at the next version only.
            context.add_callback(broadcast.wake)
            version = -1
            while (newest := broadcast.newer_than(version, context.is_active)) is not None:
                version, message = newest
                # An empty BEGIN clears what a receiver may have kept of an earlier stream's half message.
                yield _Parameters(transfer_state=TransferState.TRANSFER_BEGIN)
                for chunk in send_bytes_in_chunks(message, _Parameters):
                    if chunk.transfer_state == TransferState.TRANSFER_BEGIN:
                        chunk.transfer_state = TransferState.TRANSFER_MIDDLE
                    yield chunk
                    self._counts.add(bytes_sent=len(chunk.data))
        finally:
            self._service.stream_closed(actor)
            self._leave_actor(context)
        self._refuse_if_stopping(context)

    def SendTransitions(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._refuse_if_stopping(context)
        message_id = {key: str(value) for key, value in context.invocation_metadata()}.get(MESSAGE_ID_KEY)
        if message_id is not None and len(message_id) > _MAX_ID_LENGTH:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"{MESSAGE_ID_KEY} is over {_MAX_ID_LENGTH} long."
            )
        received = 0
        for message in assemble(request_iterator, self._max_message_bytes, self._counts, context.peer()):
            received += 1
            self._counts.add(messages=1)
            if message is None:
                if message_id is not None:
                    self._inbox.lose(message_id)
                    context.abort(
                        grpc.StatusCode.INVALID_ARGUMENT,
                        f"The message is longer than {self._max_message_bytes} bytes.",
                    )
            elif not self._inbox.put(message, message_id, context.peer()):
                context.abort(grpc.StatusCode.UNAVAILABLE, "The learner is stopping.")
        # The reply is a receipt for exactly one message.
        if message_id is not None and received != 1:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"A call with {MESSAGE_ID_KEY} carries one message; got {received}.",
            )
        return _Empty()

    def SendInteractions(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Any:  # noqa: N802
        # Pickled by the stock actor, hence never opened; the episodes tell all that is in them.
        try:
            for chunk in request_iterator:
                self._counts.add(interactions=chunk.transfer_state == TransferState.TRANSFER_END)
        except grpc.RpcError:
            logger.debug("Actor %s left its interactions.", context.peer())
        return _Empty()

    def _refuse_if_stopping(self, context: grpc.ServicerContext) -> None:
        if self._stopping.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "The learner is stopping.")

    def _enter_actor(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            full = self._actors >= 2 * self._max_actors
            if not full:
                self._actors += 1
                logger.info("Actor %s receives parameters (%d do).", context.peer(), self._actors)
        if full:
            logger.warning("Turned %s away: max_actors=%d.", context.peer(), self._max_actors)
            context.abort(
                grpc.StatusCode.UNAVAILABLE,
                f"The learner serves {self._max_actors} actors. Raise its max_actors or start fewer.",
            )

    def _leave_actor(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._actors -= 1
            logger.info("Actor %s receives no more parameters (%d do).", context.peer(), self._actors)
