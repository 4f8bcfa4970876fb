"""The way to a port of a run, as actors, policy servers and launch have one."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any

import grpc

from bridge.trust import tls
from bridge.trust.address import is_loopback, split
from bridge.trust.token import as_metadata, read_token
from pirl_jax.recipe import SecurityConfig

_OPEN = SecurityConfig()
_PATIENCE_S = 3.0
_WANTS_CERTIFICATE = (
    "wants another certificate of its clients: set tls_client_certificate and tls_client_key of "
    "algorithm.security"
)
_open_plain = grpc.insecure_channel  # the plugin puts another in its place


class Dialer:
    """Opens channels that show the token and check the certificate, as ``algorithm.security`` says.

    Args:
        security: Of the run; its own defaults where there is no run.

    Raises:
        ValueError: Token or certificates cannot be used; says what to do.
    """

    def __init__(self, security: SecurityConfig = _OPEN) -> None:
        self._security = security
        self._token, self._tls = read_token(security), tls.of_dialer(security)

    def check(self, target: str) -> None:
        """Check that the token would not be sent for everyone to read.

        Raises:
            ValueError: It would be.
        """
        if self._token is None or self._tls is not None or self._security.insecure:
            return
        if not is_loopback(split(target)[0]):
            raise ValueError(
                f"the run's token would be sent to {target} unencrypted: set algorithm.security.tls_ca; or "
                "algorithm.security.insecure=true, if whoever listens on the way is trusted."
            )

    def open(
        self, target: str, options: Sequence[tuple[str, Any]] | None = None, compression: Any = None
    ) -> grpc.Channel:
        """Open a channel to ``host:port``.

        Raises:
            ValueError: As for :meth:`check`.
        """
        self.check(target)
        # Else channels of one process share a connection, and its limit of calls.
        options = [*(options or ()), ("grpc.use_local_subchannel_pool", 1)]
        if self._tls is None:
            channel = _open_plain(target, options, compression)
        else:
            channel = grpc.secure_channel(target, self._tls, options, compression)
        return channel if self._token is None else grpc.intercept_channel(channel, _Showing(self._token))

    def why_not(self, target: str) -> str | None:
        """Return why gRPC finds nobody at a port where somebody listens; None: unknown, or nobody does.

        gRPC has the same words for a learner that is not there, and tries again for ever.
        """
        host, port = split(target)
        try:
            with socket.create_connection((host, port), _PATIENCE_S) as plain:
                return self._why_no_tls(plain, host, target)
        except OSError:
            return None

    def _why_no_tls(self, plain: socket.socket, host: str, target: str) -> str | None:
        expected = self._security.tls_ca is not None
        try:
            with tls.context(self._security).wrap_socket(plain, server_hostname=host) as wrapped:
                if not expected:
                    return f"{target} speaks TLS: set algorithm.security.tls_ca"
                return None if _is_let_in(wrapped) else f"{target} {_WANTS_CERTIFICATE}"
        except ssl.SSLCertVerificationError as error:
            return (
                f"the certificate of {target} is not one of algorithm.security.tls_ca: {error.verify_message}"
            )
        except ssl.SSLError as error:
            if expected and error.reason == "WRONG_VERSION_NUMBER":
                return f"{target} speaks no TLS: unset algorithm.security.tls_ca"
            return None


def _is_let_in(wrapped: ssl.SSLSocket) -> bool:
    """Tell whether a server goes on after the handshake, in which TLS 1.3 says nothing of our certificate.

    HTTP/2 begins with the server's settings; gRPC hangs up on a client whose certificate it does not take.
    """
    try:
        return wrapped.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:  # ssl's errors too: an alert, or the end without one
        return False


class _Details(grpc.ClientCallDetails):
    """Those of a call, and one pair of metadata more."""

    def __init__(self, details: Any, more: tuple[str, str]) -> None:
        self.method, self.timeout = details.method, details.timeout
        self.metadata = (*(details.metadata or ()), more)
        self.credentials = details.credentials
        self.wait_for_ready, self.compression = details.wait_for_ready, details.compression


class _Showing(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor
):
    """Adds the token to every call."""

    def __init__(self, token: str) -> None:
        self._shown = as_metadata(token)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(_Details(client_call_details, self._shown), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(_Details(client_call_details, self._shown), request)

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(_Details(client_call_details, self._shown), request_iterator)
