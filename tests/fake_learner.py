"""A learner that listens, pushes and assigns, and learns nothing."""

# ruff: noqa: N802 (gRPC's method names)

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import torch
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import bytes_to_transitions, send_bytes_in_chunks, state_to_bytes

from bridge.wire.assignment_service import AssignmentService
from bridge.wire.protocol import ACTOR_KEY, Registration
from bridge.wire.record import unpack
from pirl_jax.rollout.assignments import Assignments
from pirl_jax.rollout.seeds import episode_seed


class _Undemanding(AssignmentService):
    """Takes every actor, whatever its config."""

    def _refusal(self, registration: Registration) -> None:
        self.registration = registration


class FakeLearner(services_pb2_grpc.LearnerServiceServicer):
    """Collects episodes, sends the latest push to every stream and has a thousand episodes played.

    Args:
        port: To listen on; 0 picks one.
        run: Its id.
        choose: Seed → (task, place) of an episode.

    Attributes:
        seed: Of the episodes.
        episodes: Lists of transitions in order of arrival.
        message_ids: ``pirl-message-id`` of every accepted message.
        refuse: Status codes with which to abort the next transition messages, one each.
    """

    seed = 7

    def __init__(self, port: int = 0, run: int = 1, choose: Any = None) -> None:
        self.run = run
        self.episodes: list[list[dict[str, Any]]] = []
        self.message_ids: list[str] = []
        self.interactions = 0
        self.refuse: list[grpc.StatusCode] = []
        self._push: bytes | None = None
        self._count = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self.assignments = Assignments(1_000, self.seed, choose=choose)
        self.service = _Undemanding(self.assignments, run, {}, 100, self._stopping)
        self._server = grpc.server(futures.ThreadPoolExecutor(12))
        services_pb2_grpc.add_LearnerServiceServicer_to_server(self, self._server)
        self._server.add_generic_rpc_handlers((self.service.handler(),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        assert self.port != 0, f"port {port} is taken"
        self._server.start()

    def push(self, weights: dict[str, Any]) -> None:
        """Send weights to every actor, now and when it connects, and have their version play."""
        with self._changed:
            self._push = state_to_bytes({"run": torch.tensor(self.run), **weights})
            self._count += 1
            self._changed.notify_all()
        self.assignments.publish(int(weights["version"]), 0)

    def wait_for_episodes(self, number: int, timeout: float = 120.0) -> list[list[dict[str, Any]]]:
        """Return the episodes once there are enough; fail on timeout."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.episodes) >= number, timeout)
        assert arrived, f"{len(self.episodes)} of {number} episodes arrived in {timeout} s"
        return list(self.episodes)

    def stop(self) -> None:
        """Close the port at once, as a killed process does."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        self._server.stop(None).wait()

    def Ready(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer."""
        return services_pb2.Empty()

    def StreamParameters(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Yield the latest push, and each one after it."""
        actor = str(dict(context.invocation_metadata()).get(ACTOR_KEY, ""))
        self.service.stream_opened(actor)
        context.add_callback(lambda: self.service.stream_closed(actor))
        sent = 0
        while context.is_active() and not self._stopping.is_set():
            with self._changed:
                self._changed.wait(0.2)
                message, sent_now = self._push, self._count
            if message is not None and sent_now > sent:
                sent = sent_now
                yield from send_bytes_in_chunks(message, services_pb2.Parameters)

    def SendTransitions(self, request_iterator: Any, context: grpc.ServicerContext) -> Any:
        """Collect one message a call, or more."""
        buffer = b""
        for part in request_iterator:
            buffer = b"" if part.transfer_state == services_pb2.TRANSFER_BEGIN else buffer
            buffer += part.data
            if part.transfer_state == services_pb2.TRANSFER_END:
                with self._changed:
                    if self.refuse:
                        context.abort(self.refuse.pop(0), "refused by the test")
                    self.episodes.append(bytes_to_transitions(buffer))
                    self._deliver(self.episodes[-1][0])
                    self.message_ids.append(dict(context.invocation_metadata()).get("pirl-message-id", ""))
                    self._changed.notify_all()
                buffer = b""
        return services_pb2.Empty()

    def _deliver(self, transition: dict[str, Any]) -> None:
        if "action" not in transition:  # a test of the channel alone
            return
        record = unpack(transition["action"].numpy())
        if record.run == self.run:
            self.assignments.deliver(record.number, episode_seed(self.seed, record.number))

    def SendInteractions(self, request_iterator: Any, context: grpc.ServicerContext) -> Any:
        """Count messages; their content is pickled and none of a test's business."""
        for part in request_iterator:
            self.interactions += part.transfer_state == services_pb2.TRANSFER_END
        return services_pb2.Empty()
