"""Certificates and keys of ``algorithm.security``, for gRPC."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import grpc

from pirl_jax.recipe import SecurityConfig

_SECTION = "algorithm.security."


def of_listener(security: SecurityConfig) -> grpc.ServerCredentials | None:
    """Return what a server shows, and asks for under ``tls_client_ca``; None: it does not speak TLS.

    Raises:
        ValueError: A file is missing or cannot be used; says which.
    """
    if security.tls_ca is None:
        return None
    if security.tls_certificate is None or security.tls_key is None:
        raise ValueError(
            f"{_SECTION}tls_ca is set, and learner and policy servers have no certificate to show: set "
            f"{_SECTION}tls_certificate and tls_key where they run."
        )
    pair = _pair("tls_", security.tls_certificate, security.tls_key)
    if security.tls_client_ca is None:
        return grpc.ssl_server_credentials([pair])
    authority = _authority("tls_client_ca", security.tls_client_ca)
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=True)


def of_dialer(security: SecurityConfig) -> grpc.ChannelCredentials | None:
    """Return by what a client checks a server, and what it shows of itself; None: it does not speak TLS.

    Raises:
        ValueError: A file is missing or cannot be used; says which.
    """
    if security.tls_ca is None:
        return None
    key = certificate = None
    if security.tls_client_certificate is not None and security.tls_client_key is not None:
        key, certificate = _pair("tls_client_", security.tls_client_certificate, security.tls_client_key)
    return grpc.ssl_channel_credentials(_authority("tls_ca", security.tls_ca), key, certificate)


def context(security: SecurityConfig) -> ssl.SSLContext:
    """Return the standard library's counterpart of what a client checks and shows.

    Without ``tls_ca`` it accepts any certificate, since all that is asked then is whether there is TLS.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.set_alpn_protocols(["h2"])
    if security.tls_ca is None:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    else:
        made.load_verify_locations(security.tls_ca)
    if security.tls_client_certificate is not None:
        made.load_cert_chain(security.tls_client_certificate, security.tls_client_key, _no_password)
    return made


def _authority(name: str, file: str) -> bytes:
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _checked(f"{name}={file}", lambda: probe.load_verify_locations(file))
    return Path(file).read_bytes()


def _pair(prefix: str, certificate: str, key: str) -> tuple[bytes, bytes]:
    """Return private key and certificate, in the order in which gRPC wants them."""
    names = f"{prefix}certificate={certificate}", f"{prefix}key={key}"
    for name, file in zip(names, (certificate, key)):
        _checked(name, Path(file).read_bytes)
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _checked(" with ".join(names), lambda: probe.load_cert_chain(certificate, key, _no_password))
    return Path(key).read_bytes(), Path(certificate).read_bytes()


def _checked(name: str, use: Callable[[], object]) -> None:
    """Use files as gRPC will, whose own words for one that does not fit name none."""
    try:
        use()
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ValueError(f"{_SECTION}{name} cannot be used: {why}.") from error


def _no_password() -> str:
    """Answer where OpenSSL would ask the terminal: gRPC opens no encrypted key."""
    return ""
