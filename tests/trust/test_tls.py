"""TLS over real connections: who gets through, and in which words the others are told why not."""

from pathlib import Path

import grpc
import pytest
from certificates import Authority, secured

from bridge.trust.dialer import Dialer
from pirl_jax.recipe import SecurityConfig


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_with_token_and_tls_it_is_answered(authority, tmp_path, listen, say, host):
    security = secured(authority, tmp_path)
    port = listen(security)
    client = SecurityConfig(tls_ca=authority.certificate, token_file=security.token_file)
    assert say(f"{host}:{port}", client) == b"hello"
    code, words = say(f"{host}:{port}", SecurityConfig(tls_ca=authority.certificate))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "this run asks for its token" in words


def test_over_ipv6(authority, tmp_path, listen, say):
    """It listens on all addresses, and one client comes by IPv6, another by IPv4."""
    security = secured(authority, tmp_path)
    port = listen(security, "[::]")
    assert say(f"[::1]:{port}", security) == b"hello"
    assert say(f"127.0.0.1:{port}", security) == b"hello"


def why(say, port, security):
    code, _ = say(f"127.0.0.1:{port}", security)
    assert code is grpc.StatusCode.UNAVAILABLE
    return Dialer(security).why_not(f"127.0.0.1:{port}")


def test_plaintext_to_tls_is_told(authority, listen, say):
    port = listen(SecurityConfig(**authority.server))
    assert why(say, port, SecurityConfig()) == f"127.0.0.1:{port} speaks TLS: set algorithm.security.tls_ca"


def test_tls_to_plaintext_is_told(authority, listen, say):
    port = listen()
    words = why(say, port, SecurityConfig(tls_ca=authority.certificate))
    assert words == f"127.0.0.1:{port} speaks no TLS: unset algorithm.security.tls_ca"


def test_a_certificate_of_another_authority_is_told(authority, stranger, listen, say):
    port = listen(SecurityConfig(**authority.server))
    words = why(say, port, SecurityConfig(tls_ca=stranger.certificate))
    assert "is not one of algorithm.security.tls_ca: " in words


def test_a_certificate_of_another_host_is_told(tmp_path, listen, say):
    elsewhere = Authority(tmp_path, "learner.example.org")
    port = listen(SecurityConfig(**elsewhere.server))
    words = why(say, port, SecurityConfig(tls_ca=elsewhere.certificate))
    assert "is not valid for '127.0.0.1'" in words


def test_with_an_authority_of_clients_only_theirs_get_in(authority, stranger, listen, say):
    port = listen(SecurityConfig(**authority.server, tls_client_ca=authority.certificate))
    assert say(f"127.0.0.1:{port}", SecurityConfig(**authority.client)) == b"hello"
    words = why(say, port, SecurityConfig(tls_ca=authority.certificate))
    assert "wants another certificate of its clients" in words
    forged = {**stranger.client, "tls_ca": authority.certificate}
    assert "wants another certificate of its clients" in why(say, port, SecurityConfig(**forged))


def test_where_nobody_listens_or_all_is_well_there_is_nothing_to_tell(authority, listen):
    security = SecurityConfig(**authority.server)
    assert Dialer(security).why_not("127.0.0.1:1") is None
    assert Dialer(security).why_not(f"127.0.0.1:{listen(security)}") is None
    assert Dialer().why_not(f"127.0.0.1:{listen()}") is None


def test_files_that_do_not_fit_are_named(authority, stranger, tmp_path, listen):
    server = authority.server
    (tmp_path / "empty.pem").touch()
    cases = [
        ({"tls_ca": f"{tmp_path}/none"}, r"tls_ca=.*/none cannot be used: No such file"),
        (
            {"tls_ca": f"{tmp_path}/empty.pem"},
            r"tls_ca=.*/empty.pem cannot be used: NO_CERTIFICATE_OR_CRL_FOUND",
        ),
        ({"tls_key": f"{tmp_path}/none"}, r"tls_key=.*/none cannot be used: No such file"),
        ({"tls_key": stranger.server["tls_key"]}, r"tls_certificate=.* with tls_key=.*KEY_VALUES_MISMATCH"),
        ({"tls_client_ca": f"{tmp_path}/empty.pem"}, r"tls_client_ca=.* cannot be used"),
    ]
    for change, words in cases:
        with pytest.raises(ValueError, match=words):
            listen(SecurityConfig(**{**server, **change})) if "tls_ca" not in change else Dialer(
                SecurityConfig(**{**server, **change})
            )
    with pytest.raises(
        ValueError, match=r"have no certificate to show: set algorithm\.security\.tls_certificate"
    ):
        listen(SecurityConfig(tls_ca=authority.certificate))


def test_a_key_with_a_password_is_refused_without_asking_the_terminal(authority, tmp_path, listen):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(Path(authority.server["tls_key"]).read_bytes(), None)
    locked = tmp_path / "locked.key"
    forms = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    locked.write_bytes(key.private_bytes(*forms, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(ValueError, match=r"with tls_key=.*/locked.key cannot be used"):
        listen(SecurityConfig(**{**authority.server, "tls_key": str(locked)}))
