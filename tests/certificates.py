"""Certificates of an authority that a test makes, as files."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import trustme

from pirl_jax.recipe import SecurityConfig

TOKEN = "a-token-of-tests-and-nothing-else"


class Authority:
    """Signs certificates of servers and clients.

    Args:
        folder: Of the files.
        names: Hosts that the server's certificate is for.
    """

    def __init__(self, folder: Path, *names: str) -> None:
        self._folder, self._ca = folder, trustme.CA()
        self._names = names or ("localhost", "127.0.0.1", "::1")
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.certificate)

    @cached_property
    def server(self) -> dict[str, str]:
        """Settings of whoever listens."""
        return {"tls_ca": self.certificate, **self._issued("tls_", "server", *self._names)}

    @cached_property
    def client(self) -> dict[str, str]:
        """Settings of a client that shows a certificate."""
        return {"tls_ca": self.certificate, **self._issued("tls_client_", "client", "actors@example.org")}

    def _issued(self, prefix: str, name: str, *identities: str) -> dict[str, str]:
        issued, certificate, key = self._ca.issue_cert(*identities), f"{name}.pem", f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(str(self._folder / certificate))
        issued.private_key_pem.write_to_path(str(self._folder / key))
        files = {f"{prefix}certificate": certificate, f"{prefix}key": key}
        return {setting: str(self._folder / file) for setting, file in files.items()}


def token_file(folder: Path, token: str = TOKEN) -> str:
    """Write a token to a file that its owner alone can read; return its path."""
    file = folder / "token"
    file.touch(0o600)
    file.write_text(f"{token}\n")
    return str(file)


def secured(authority: Authority, folder: Path) -> SecurityConfig:
    """Return the settings of a run with token and TLS, for both sides."""
    return SecurityConfig(token_file=token_file(folder), **authority.server)
