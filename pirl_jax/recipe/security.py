"""``algorithm.security``: who may reach the ports of a run, and how much one may take of them."""

from __future__ import annotations

from dataclasses import dataclass

from pirl_jax.recipe import ranges


@dataclass(frozen=True)
class SecurityConfig:
    """Where a run listens, and what it asks of whoever connects (docs/security.md).

    Nothing of it changes what is learned, and it may differ between machines. The token itself is no setting,
    since settings are saved: it stands in the environment (``PIRL_TOKEN``) or in a file. Files are PEM, and a
    process reads only those that it needs.
    """

    bind: str | None = None
    """Address at which learner and policy servers listen, IPv6 in brackets; null: where the others find them
    (``actor_learner_config.learner_host``, ``serve.host``)."""
    token_file: str | None = None
    """File that holds the token, where ``PIRL_TOKEN`` does not."""
    tls_ca: str | None = None
    """Certificates of the authority that has signed ``tls_certificate``, by which whoever connects checks it.
    With it everything passes by TLS; null: nothing does."""
    tls_certificate: str | None = None
    """Of learner and policy servers, with those of intermediate authorities behind it."""
    tls_key: str | None = None
    """Its private key, not encrypted."""
    tls_client_ca: str | None = None
    """Certificates of the authority that has signed those of the clients, by which learner and policy servers
    check them; null: clients need none."""
    tls_client_certificate: str | None = None
    """Of actors, policy servers and launch, towards whoever asks for one."""
    tls_client_key: str | None = None
    """Its private key, not encrypted."""
    insecure: bool = False
    """Whether a run may listen beyond this machine without token or TLS: because whoever can reach its ports
    is trusted, and whoever can listen on the way."""
    max_streams: int = 32
    """Calls that one connection may have open; more wait at the client. An actor has six at most."""
    max_messages_per_s: float = 2000.0
    """Messages a second from one host, on average over a second; more are read later."""
    max_mb_per_s: float = 1024.0
    """MiB a second from one host, likewise."""

    def __post_init__(self) -> None:
        """Check the numbers, and that no file is named that does nothing without another.

        Raises:
            ValueError: naming the settings and the remedy.
        """
        ranges.check("security", self)
        if self.bind is not None:
            ranges.check_host("algorithm.security.bind", self.bind)
        for name, other in _NEEDS:
            if getattr(self, name) is not None and getattr(self, other) is None:
                raise ValueError(f"algorithm.security.{name} does nothing without {other}: set it, too.")


_NEEDS = (
    ("tls_certificate", "tls_key"),
    ("tls_key", "tls_certificate"),
    ("tls_certificate", "tls_ca"),
    ("tls_client_ca", "tls_ca"),
    ("tls_client_certificate", "tls_client_key"),
    ("tls_client_key", "tls_client_certificate"),
    ("tls_client_certificate", "tls_ca"),
)
