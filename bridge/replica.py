"""A policy server in a process of its own: its port, and its ties to the learner."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Self

import grpc
from lerobot.transport import services_pb2, services_pb2_grpc

from bridge.plugin.transport import LearnerChannel, Outage, open_channel
from bridge.trust.dialer import Dialer
from bridge.trust.listener import Listener
from bridge.weights.state_dict import from_push
from bridge.wire import protocol, record
from bridge.wire.act_service import ActService
from bridge.wire.broadcast import deserialise
from bridge.wire.protocol import PACKAGE_VERSION, Offer, Offered, ProtocolError
from bridge.wire.spec import EpisodeSpec
from pirl_jax.recipe import SecurityConfig
from pirl_jax.rollout.behaviour import Behaviour, updates_of
from pirl_jax.serving.service import PolicyService
from pirl_jax.typing import Params

logger = logging.getLogger(__name__)

_OFFER_EVERY_S = 2.0
_CALL_TIMEOUT_S = 10.0
_POLL_S = 0.5
_SPARE_CALLS = 4
"""To say that there is no room for more."""
_REFUSALS = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
)
_REMEDY = "Set algorithm.serve.host and algorithm.serve.port, for learner and servers alike."
_OPEN = SecurityConfig()


class Replica:
    """Serves chunks on a port, offers itself to the learner, and takes over what the learner pushes.

    A context manager. The learner may come later, be gone for a while, or be another process: actors are
    answered with what there is.

    Args:
        service: Who answers; its encoder is there.
        spec: Sizes of what is sent.
        host: Where actors find this server; it listens there, or where ``security`` says.
        port: Likewise; 0 picks a free one, see the attribute.
        learner: Address of the learner, ``host:port``.
        agreement: What it must have in common with it: dotted name → JSON value.
        shapes: Of the trainable parameters.
        most: Questions that may be there at a time.
        stop: Set when the server should end; set by this class when it cannot go on.
        security: Who may connect, and how; and how the learner is reached.

    Raises:
        ValueError: Token or certificates are missing or cannot be used.

    Attributes:
        port: Where it listens.
        failure: Why it has ended by itself: the learner refuses it, or what it was doing has failed.
    """

    def __init__(
        self,
        service: PolicyService,
        spec: EpisodeSpec,
        host: str,
        port: int,
        learner: str,
        agreement: Mapping[str, Any],
        shapes: Params,
        most: int,
        stop: threading.Event,
        security: SecurityConfig = _OPEN,
    ) -> None:
        self._service, self._shapes, self._stop = service, shapes, stop
        self._host, self.port, self._agreement = host, port, dict(agreement)
        self._run = 0
        self.failure: Exception | None = None
        self._act = ActService(service, spec, lambda: self._run, stop, most)
        self._listener = Listener(security, host, port, most + _SPARE_CALLS, "policy-server", _REMEDY)
        self._learner, self._dialer = learner, Dialer(security)
        self._channel = LearnerChannel(open_channel(learner, dialer=self._dialer), stop)

    def __enter__(self) -> Self:
        """Bind the port and begin.

        Raises:
            OSError: The port is in use, or the address is not this machine's.
        """
        self.port = self._listener.open(
            lambda server: server.add_generic_rpc_handlers((self._act.handler(),))
        )
        for work in (self._receive, self._take_over, self._offer):
            threading.Thread(target=self._do, args=(work,), name=work.__name__, daemon=True).start()
        logger.info("Policy server listens on %s:%d, %s.", self._listener.host, self.port, self._listener)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop serving: open calls end with UNAVAILABLE."""
        self._stop.set()
        self._listener.close()
        self._channel.close()

    def _do(self, work: Callable[[], None]) -> None:
        """Do what a thread is for; without one of them a server would act for ever as it does now."""
        try:
            work()
        except Exception as error:
            failure = RuntimeError(f"a thread of the policy server has failed: {error!r}")
            failure.__cause__ = error
            self._end(failure)

    def _receive(self) -> None:
        """Keep the parameter stream open; messages wait in the channel."""
        stub = services_pb2_grpc.LearnerServiceStub(self._channel)
        empty: Any = services_pb2.Empty  # type: ignore[attr-defined]
        try:
            list(stub.StreamParameters(empty()))
        except grpc.RpcError as error:
            refused: Any = error
            if refused.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
            self._end(ValueError(f"the learner refused this policy server: {refused.details()}"))

    def _take_over(self) -> None:
        while not self._stop.is_set():
            message = self._channel.parameters.take(_POLL_S)
            if message is not None:
                self._load(deserialise(message))

    def _load(self, push: Mapping[str, Any]) -> None:
        run, version, level = int(push["run"]), int(push["version"]), float(push["level"])
        params = from_push(push["policy"], self._shapes)
        self._service.publish(run, version, Behaviour(params, updates_of(version), level))
        logger.info("Acting with version %d.", version)

    def _offer(self) -> None:
        """Tell the learner now and then that this server is there, and hear which process it is."""
        call: Any = self._channel.plain.unary_unary(f"/{protocol.SERVICE}/{protocol.OFFER}")
        address = f"{self._host}:{self.port}"
        offer = Offer(uuid.uuid4().hex, address, PACKAGE_VERSION, record.FORMAT, self._agreement)
        outage = Outage("Offer", self._stop)
        while not self._stop.is_set():
            try:
                self._run = protocol.decode(
                    Offered, call(protocol.encode(offer), timeout=_CALL_TIMEOUT_S)
                ).run
            except grpc.RpcError as error:
                code: Any = error
                if code.code() in _REFUSALS:
                    return self._end(ValueError(f"the learner refused this policy server: {code.details()}"))
                if code.code() is grpc.StatusCode.UNAVAILABLE and (
                    why := self._dialer.why_not(self._learner)
                ):
                    return self._end(ValueError(why))
                if not outage.wait(f"{code.code().name} {code.details()}"):
                    return None
            except ProtocolError as error:
                return self._end(ValueError(f"the learner's answer cannot be read: {error}"))
            else:
                outage.over()
                self._stop.wait(_OFFER_EVERY_S)
        return None

    def _end(self, failure: Exception) -> None:
        if not self._stop.is_set():
            self.failure = failure
            self._stop.set()
