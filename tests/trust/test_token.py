"""Where a run's token comes from, and what is none."""

import pytest
from certificates import TOKEN, token_file

from bridge.trust.token import read_token, readable_by_others
from pirl_jax.recipe import SecurityConfig


def test_it_is_of_the_environment_or_of_a_file(tmp_path, monkeypatch):
    assert read_token(SecurityConfig()) is None
    from_file = SecurityConfig(token_file=token_file(tmp_path))
    assert read_token(from_file) == TOKEN  # without the line's end
    monkeypatch.setenv("PIRL_TOKEN", TOKEN)
    assert read_token(SecurityConfig()) == read_token(from_file) == TOKEN


def test_two_that_differ_are_refused_and_not_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PIRL_TOKEN", "another-token-of-tests")
    with pytest.raises(ValueError, match=r"PIRL_TOKEN and .*token_file=.* hold different tokens") as raised:
        read_token(SecurityConfig(token_file=token_file(tmp_path)))
    assert TOKEN not in str(raised.value)
    assert "another-token" not in str(raised.value)


@pytest.mark.parametrize(
    "token", ["short", "x" * 513, "with a space in between", "käse" * 5, "two\nlines" * 3]
)
def test_what_is_no_token_is_refused_and_not_told(tmp_path, monkeypatch, token):
    monkeypatch.setenv("PIRL_TOKEN", token)
    with pytest.raises(
        ValueError, match=r"PIRL_TOKEN holds no token: .* Make one: openssl rand -hex 32"
    ) as raised:
        read_token(SecurityConfig())
    assert token not in str(raised.value)
    monkeypatch.delenv("PIRL_TOKEN")
    with pytest.raises(ValueError, match=r"token_file=.* holds no token"):
        read_token(SecurityConfig(token_file=token_file(tmp_path, token)))


def test_an_empty_one_is_not_as_none(tmp_path, monkeypatch):
    """As of a variable that was set from a file that is not there: the run would be open without a word."""
    monkeypatch.setenv("PIRL_TOKEN", "")
    with pytest.raises(ValueError, match=r"PIRL_TOKEN is empty\. Unset it if there is to be no token"):
        read_token(SecurityConfig())
    monkeypatch.delenv("PIRL_TOKEN")
    with pytest.raises(ValueError, match=r"token_file=.* is empty"):
        read_token(SecurityConfig(token_file=token_file(tmp_path, "")))
    with pytest.raises(ValueError, match=r"token_file=.*/none cannot be read: No such file"):
        read_token(SecurityConfig(token_file=f"{tmp_path}/none"))


def test_a_file_that_others_can_read_is_noticed(tmp_path):
    security = SecurityConfig(token_file=token_file(tmp_path))
    assert not readable_by_others(security)
    (tmp_path / "token").chmod(0o640)
    assert readable_by_others(security)
