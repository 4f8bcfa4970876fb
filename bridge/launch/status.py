"""A learner's own word on how its run stands."""

from __future__ import annotations

from typing import Protocol

import grpc

from bridge.trust.dialer import Dialer
from bridge.wire import protocol
from bridge.wire.protocol import ProtocolError, Status
from pirl_jax.recipe import SecurityConfig

_OPEN = SecurityConfig()
_TIMEOUT_S = 2.0
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),  # the learner is on this machine
)


class Line(Protocol):
    """What is used of a ``StatusLine``."""

    def ask(self) -> Status | None:
        """Return how the run stands; None if nobody says so."""

    def close(self) -> None:
        """Hang up."""


class StatusLine:
    """The line to a learner that may be there or not.

    Args:
        address: ``host:port``.
        security: Of the run.

    Raises:
        ValueError: Token or certificates cannot be used.
    """

    def __init__(self, address: str, security: SecurityConfig = _OPEN) -> None:
        self._channel = Dialer(security).open(address, _OPTIONS)
        self._call = self._channel.unary_unary(f"/{protocol.SERVICE}/{protocol.STATUS}")

    def ask(self) -> Status | None:
        """Return how the run stands; None if nobody says so within two seconds."""
        try:
            return protocol.decode(Status, self._call(b"{}", timeout=_TIMEOUT_S))
        except (grpc.RpcError, ProtocolError):
            return None

    def close(self) -> None:
        """Hang up."""
        self._channel.close()
