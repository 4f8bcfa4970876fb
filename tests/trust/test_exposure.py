"""What a port must have that other machines reach, before anything is loaded for it."""

import logging

import pytest
from certificates import TOKEN, Authority, token_file

from bridge.trust.address import is_loopback, is_near
from bridge.trust.dialer import Dialer
from bridge.trust.listener import Listener, check
from pirl_jax.recipe import SecurityConfig


@pytest.fixture
def settings(tmp_path):
    authority = Authority(tmp_path)
    return {
        "nothing": {},
        "a token": {"token_file": token_file(tmp_path)},
        "TLS": authority.server,
        "both": {"token_file": token_file(tmp_path), **authority.server},
    }


@pytest.mark.parametrize(
    ("has", "lacks"), [("nothing", "token and TLS"), ("a token", "TLS"), ("TLS", "token"), ("both", None)]
)
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "no.such.host.invalid"])
def test_beyond_this_machine_it_has_both_or_somebody_says_that_it_need_not(settings, host, has, lacks):
    if lacks is None:
        check(SecurityConfig(**settings[has]), host)
        return
    with pytest.raises(
        ValueError, match=rf"is open to other machines, and there is no {lacks}\. Set PIRL_TOKEN"
    ):
        check(SecurityConfig(**settings[has]), host)
    with pytest.raises(ValueError, match=lacks):
        Listener(SecurityConfig(**settings[has]), host, 0, 4, "test", "")
    check(SecurityConfig(**settings[has], insecure=True), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]", "::ffff:127.0.0.1"])
def test_on_this_machine_nothing_is_asked(host):
    assert is_loopback(host)
    check(SecurityConfig(), host)


def test_where_it_listens_counts_and_not_where_the_others_find_it():
    check(SecurityConfig(bind="127.0.0.1"), "learner.example.org")  # behind a tunnel
    with pytest.raises(ValueError, match=r"^0\.0\.0\.0 is open to other machines"):
        check(SecurityConfig(bind="0.0.0.0"), "127.0.0.1")


def test_an_open_port_and_a_readable_token_are_said_when_it_listens(tmp_path, caplog):
    file = token_file(tmp_path)
    (tmp_path / "token").chmod(0o644)
    security = SecurityConfig(token_file=file, insecure=True, bind="0.0.0.0")
    listener = Listener(security, "127.0.0.1", 0, 4, "test", "")
    with caplog.at_level(logging.WARNING):
        listener.open(lambda server: None)
    listener.close()
    assert "0.0.0.0 is open to other machines without TLS." in caplog.text
    assert f"Other users of this machine can read {file}." in caplog.text
    assert TOKEN not in caplog.text


def test_a_token_is_not_sent_beyond_this_machine_for_everyone_to_read(settings):
    with pytest.raises(ValueError, match=r"token would be sent to 192\.0\.2\.1:1 unencrypted: set .*tls_ca"):
        Dialer(SecurityConfig(**settings["a token"])).open("192.0.2.1:1")
    for security in (
        SecurityConfig(**settings["a token"], insecure=True),
        SecurityConfig(**settings["both"]),
        SecurityConfig(),
    ):
        Dialer(security).open("192.0.2.1:1").close()
    Dialer(SecurityConfig(**settings["a token"])).open("127.0.0.1:1").close()


def test_a_name_that_nobody_knows_is_neither_near_nor_this_machine():
    assert not is_loopback("no.such.host.invalid")
    assert not is_near("no.such.host.invalid:1")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"bind": "::"},
            r"security.bind must be a name or an address, IPv6 in brackets as \[::1\]; got '::'",
        ),
        ({"tls_key": "k"}, r"security.tls_key does nothing without tls_certificate: set it, too"),
        ({"tls_certificate": "c", "tls_key": "k"}, r"security.tls_certificate does nothing without tls_ca"),
        ({"tls_client_ca": "c"}, r"security.tls_client_ca does nothing without tls_ca"),
        (
            {"tls_ca": "a", "tls_client_key": "k"},
            r"tls_client_key does nothing without tls_client_certificate",
        ),
        ({"max_streams": 7}, r"security.max_streams must be ≥ 8; got 7"),
        ({"max_mb_per_s": 0}, r"security.max_mb_per_s must be above 0; got 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        SecurityConfig(**settings)
