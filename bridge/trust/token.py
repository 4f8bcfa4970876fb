"""The token of a run: a secret that learner, actors, policy servers and launch have in common."""

from __future__ import annotations

import os
from pathlib import Path

from pirl_jax.recipe import SecurityConfig

VARIABLE = "PIRL_TOKEN"
METADATA_KEY = "authorization"
_SCHEME = "Bearer "
_LENGTHS = range(16, 513)
_MAKE_ONE = "Make one: openssl rand -hex 32"


def read_token(security: SecurityConfig) -> str | None:
    """Return the run's token, of the environment or of ``token_file``; None: there is none.

    Raises:
        ValueError: It cannot be read, is no token, or the two differ; says what to do, and never the token.
    """
    variable, file = os.environ.get(VARIABLE), security.token_file
    if variable is not None:
        _check(VARIABLE, variable, "Unset it if there is to be no token")
    if file is None:
        return variable
    name = f"algorithm.security.token_file={file}"
    try:
        token = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    _check(name, token, _MAKE_ONE)
    if variable not in (None, token):
        raise ValueError(f"{VARIABLE} and {name} hold different tokens: unset the one or the other.")
    return token


def readable_by_others(security: SecurityConfig) -> bool:
    """Tell whether other users of this machine can read the token's file."""
    return security.token_file is not None and bool(Path(security.token_file).stat().st_mode & 0o077)


def as_metadata(token: str) -> tuple[str, str]:
    """Return what a call carries that shows a token."""
    return METADATA_KEY, f"{_SCHEME}{token}"


def _check(name: str, token: str, remedy: str) -> None:
    if not token:
        raise ValueError(f"{name} is empty. {remedy}.")
    if len(token) not in _LENGTHS or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"{name} holds no token: it must be {_LENGTHS.start} to {_LENGTHS.stop - 1} printable ASCII "
            f"characters without a space. {_MAKE_ONE}."
        )
