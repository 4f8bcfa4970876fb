"""A port of a run, as learner and policy servers have one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from lerobot.transport.utils import MAX_MESSAGE_SIZE

from bridge.trust import tls
from bridge.trust.address import is_loopback
from bridge.trust.guard import Guard
from bridge.trust.limits import Limits
from bridge.trust.token import VARIABLE, read_token, readable_by_others
from pirl_jax.recipe import SecurityConfig

logger = logging.getLogger(__name__)

_FOR_OTHERS = 16
"""Calls that no single host can take away from the others."""
_STOP_GRACE_S = 0.5
_OPTIONS = (
    # Else a second server could share the port and take half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_SIZE),
    ("grpc.max_send_message_length", MAX_MESSAGE_SIZE),
    # Let clients ping as they like, and find the peers that vanished without a goodbye.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    # A client that begins a TLS handshake and goes no further.
    ("grpc.server_handshake_timeout_ms", 10_000),
)


class Listener:
    """Lets in whom ``algorithm.security`` lets in; gRPC's health service tells anyone that it is there.

    Args:
        security: Of the run.
        host: Where the others find it; it listens there unless ``security.bind`` says where.
        port: Likewise; 0 picks a free one.
        calls: Calls at a time; a few more are served, which no single host can take.
        name: Of its threads.
        remedy: What to do where the port cannot be had.

    Raises:
        ValueError: Token or certificates are missing or cannot be used; says what to do.
    """

    def __init__(
        self, security: SecurityConfig, host: str, port: int, calls: int, name: str, remedy: str
    ) -> None:
        self.host, self._port = security.bind or host, port
        self._calls, self._name, self._remedy = calls, name, remedy
        self._token, self._tls = read_token(security), tls.of_listener(security)
        self._security = security
        check_exposure(security, self.host, self._token is not None, self._tls is not None)
        self._health = health.HealthServicer(experimental_non_blocking=False)
        self._server: grpc.Server | None = None

    def open(self, add: Callable[[grpc.Server], None]) -> int:
        """Bind the port and serve; return its number.

        Args:
            add: Adds the services to a server.

        Raises:
            OSError: The port is in use, or the address is not this machine's.
        """
        security, workers = self._security, self._calls + _FOR_OTHERS
        limits = Limits(self._calls, security.max_messages_per_s, security.max_mb_per_s * 2**20)
        server = grpc.server(
            ThreadPoolExecutor(workers, thread_name_prefix=self._name),
            interceptors=[Guard(self._token, limits)],
            # Beyond that a call is refused at once; queued, a stock actor's Ready would hang without a word.
            maximum_concurrent_rpcs=workers,
            options=[*_OPTIONS, ("grpc.max_concurrent_streams", security.max_streams)],
        )
        add(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        address = f"{self.host}:{self._port}"
        try:
            if self._tls is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, self._tls)
        except RuntimeError as error:
            raise OSError(
                f"Cannot listen on {address}: the port is in use, or the address is not this machine's. "
                f"{self._remedy}"
            ) from error
        server.start()
        self._server = server
        self._warn()
        return port

    def close(self) -> None:
        """Stop serving: open calls end with UNAVAILABLE, or are cut off after half a second."""
        if self._server is not None:
            self._health.enter_graceful_shutdown()
            self._server.stop(_STOP_GRACE_S).wait()
            self._server = None

    def __str__(self) -> str:
        """Say how it is protected, for the log."""
        asked = [*(["token"] if self._token else []), *(["TLS"] if self._tls else [])]
        return f"with {' and '.join(asked)}" if asked else "without token and TLS"

    def _warn(self) -> None:
        if lacks := _lacks(self.host, self._token is not None, self._tls is not None):
            logger.warning("%s is open to other machines without %s.", self.host, lacks)
        if readable_by_others(self._security):
            logger.warning("Other users of this machine can read %s.", self._security.token_file)


def check(security: SecurityConfig, host: str) -> None:
    """Check that a server could listen, before anything is loaded for it.

    Raises:
        ValueError: As for ``Listener``.
    """
    token, credentials = read_token(security), tls.of_listener(security)
    check_exposure(security, security.bind or host, token is not None, credentials is not None)


def check_exposure(security: SecurityConfig, host: str, token: bool, encrypted: bool) -> None:
    """Check that what other machines reach has token and TLS.

    Raises:
        ValueError: It has not, and ``security.insecure`` does not say that it need not.
    """
    if not security.insecure and (lacks := _lacks(host, token, encrypted)):
        raise ValueError(
            f"{host} is open to other machines, and there is no {lacks}. Set {VARIABLE}, and tls_ca, "
            "tls_certificate and tls_key of algorithm.security (docs/security.md); or algorithm.security."
            "insecure=true, if whoever reaches this port, or listens on the way to it, is trusted."
        )


def _lacks(host: str, token: bool, encrypted: bool) -> str:
    """Return what an address lacks that other machines reach; "" where nothing."""
    lacks = [*([] if token else ["token"]), *([] if encrypted else ["TLS"])]
    return " and ".join(lacks) if lacks and not is_loopback(host) else ""
