"""The policy server, as an actor without a network reaches it."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np

from bridge.plugin.assigned import refuse, stopped
from bridge.plugin.transport import LearnerChannel, Outage, open_channel
from bridge.wire import act
from bridge.wire.protocol import ProtocolError

_TIMEOUT_S = 600.0
"""For one chunk: a large policy on a CPU takes minutes. A server that is gone is noticed long before."""
_POLL_S = 0.2
_ASK_WHERE_AFTER = 8
"""Failures in a row, some ten seconds, after which the learner is asked for another server."""
_PATIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)
"""The server is away, busy, or has failed at something that is not this actor's fault."""


class PolicyServerClient:
    """Asks for chunks, and waits for the server for as long as it takes, whoever is restarted meanwhile.

    Asking twice does no harm: an answer follows from the question and the version of the parameters, and what
    an actor executes is what it sends to the learner.

    Args:
        channel: To the learner, which says where the server is: on its own port, or elsewhere.
        latents: (L, H, A) of a chunk.
    """

    def __init__(self, channel: LearnerChannel, latents: tuple[int, int, int]) -> None:
        self._learner, self._latents = channel, latents
        self._outage = Outage("Policy server", channel.stop)
        self._address: str | None = None
        self._call: Any = None

    def ask(
        self, question: act.Question, observation: act.Observation, tokens: np.ndarray
    ) -> tuple[act.Answer, act.Chunk]:
        """Return the chunk for an observation.

        Raises:
            SystemExit: The server refuses this actor; or the actor was told to stop.
        """
        message = act.encode_question(question, observation)
        failures = 0
        while True:
            try:
                data = self._result(self._find().future(message, timeout=_TIMEOUT_S))
                answer = act.decode_answer(data, self._latents)
            except grpc.RpcError as error:
                code, details = error.code(), error.details()
                if code is grpc.StatusCode.NOT_FOUND and details == act.UNKNOWN_TOKENS:
                    message = act.encode_question(question, observation, tokens)
                elif code not in _PATIENT:
                    refuse(f"the policy server refused this actor: {code.name} {details}")
                elif not self._outage.wait(f"{code.name} {details}"):
                    stopped()
                failures += 1
                if self._address and failures % _ASK_WHERE_AFTER == 0:
                    self._learner.episodes.register_again()
            except ProtocolError as error:
                refuse(f"the policy server's answer cannot be used: {error}")
            else:
                if self._is_of_the_episodes_run(question.run, answer[0].run):
                    self._outage.over()
                    return answer
                if not self._outage.wait("the policy server acts for another run"):
                    stopped()

    def _is_of_the_episodes_run(self, asked: int, answered: int) -> bool:
        """Tell whether an answer may be used for an episode that a run has assigned.

        Of another run it may if that is what the learner has become meanwhile: the episode is then played to
        its end for nothing. Else the server has not heard of this learner yet, or works for a neighbour's.
        """
        episodes = self._learner.episodes
        if answered != asked and episodes.run == asked:
            episodes.register_again()
        return answered == asked or episodes.run != asked

    def _find(self) -> Any:
        """Return the call of the server that the learner has named."""
        address = self._learner.episodes.server
        if address != self._address:
            try:
                channel = (
                    open_channel(address, dialer=self._learner.dialer) if address else self._learner.plain
                )
            except ValueError as error:
                refuse(str(error))
            self._call = channel.unary_unary(f"/{act.SERVICE}/{act.ACT}")
            self._address = address
        return self._call

    def _result(self, pending: grpc.Future) -> bytes:
        while True:
            self._learner.episodes.say_alive()
            try:
                return pending.result(_POLL_S)
            except grpc.FutureTimeoutError:
                if self._learner.stop.is_set():
                    pending.cancel()
                    stopped()
