"""The policy servers of a run that are processes of their own: who is there, and who acts for which actor."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.wire.protocol import Offer
from bridge.wire.refusal import refusal

logger = logging.getLogger(__name__)

GONE_AFTER_S = 10.0
"""Seconds without an offer after which a server counts as gone; it repeats its own every few."""


@dataclass
class _Server:
    address: str
    seen: float


class PolicyServers:
    """Spreads actors over the servers that are there: each new one goes where the fewest are.

    Args:
        agreement: What a server must have in common with the learner: dotted name → JSON value.
    """

    def __init__(self, agreement: Mapping[str, Any]) -> None:
        self._agreement = json.loads(json.dumps(agreement))  # tuples are lists over there
        self._servers: dict[str, _Server] = {}
        self._of_actor: dict[str, str] = {}
        self._lock = threading.Lock()

    def offer(self, offer: Offer) -> str | None:
        """Note that a server is there; return why it is refused, if it is."""
        reason = refusal("policy server", offer.package, offer.row_format, offer.agreement, self._agreement)
        if reason is not None:
            logger.warning("Refused the policy server at %s: %s", offer.address, reason)
            return reason
        with self._lock:
            if offer.server not in self._servers:
                logger.info("A policy server acts at %s.", offer.address)
            self._servers[offer.server] = _Server(offer.address, time.monotonic())
        return None

    def choose(self, actor: str) -> str | None:
        """Return the address of an actor's server, the same while it is there; None: there is none."""
        with self._lock:
            self._forget_the_gone()
            if self._of_actor.get(actor) not in self._servers:
                if not self._servers:
                    return None
                actors = Counter(self._of_actor.values())
                self._of_actor[actor] = min(self._servers, key=lambda server: actors[server])
            return self._servers[self._of_actor[actor]].address

    def addresses(self) -> list[str]:
        """Return where the servers are that are there."""
        with self._lock:
            self._forget_the_gone()
            return sorted({server.address for server in self._servers.values()})

    def leave(self, actor: str) -> None:
        """Note that an actor is gone."""
        with self._lock:
            self._of_actor.pop(actor, None)

    def _forget_the_gone(self) -> None:
        now = time.monotonic()
        for key, server in list(self._servers.items()):
            if now - server.seen > GONE_AFTER_S:
                logger.warning("The policy server at %s is gone.", server.address)
                del self._servers[key]
