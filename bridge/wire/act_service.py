"""The service by which light actors have their chunks chosen."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NotYetError
from typing import NoReturn

import grpc
import numpy as np
from lerobot.transport.utils import MAX_MESSAGE_SIZE

from bridge.wire import act
from bridge.wire.act import Answer, Chunk, Question
from bridge.wire.protocol import ProtocolError
from bridge.wire.spec import EpisodeSpec
from pirl_jax.serving.acting import Acted, Asked
from pirl_jax.serving.batching import ClosedError
from pirl_jax.serving.service import PolicyService

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_LONGEST_S = 600.0
"""How long a question is worked on, whatever deadline its client has set."""
_KNOWN_INSTRUCTIONS = 4096
_STOPS = "The policy server is stopping."


class ActService:
    """Answers each question as soon as its batch is there.

    A client that has left costs no more than the batch that had begun. What cannot be answered yet (the
    parameters are too old, too many wait) is UNAVAILABLE or RESOURCE_EXHAUSTED, and worth asking again: an
    answer depends on nothing but the question and the version, so that asking twice does no harm.

    Args:
        service: Who answers.
        spec: Sizes of what is sent.
        current_run: Id of the learner's process. An episode of an earlier one, which that process will not
            learn from, is played to its end under whatever parameters act.
        stopping: Set when the server stops.
        most: Questions that may be there at a time. One that waits takes a thread of the server's.

    Raises:
        ValueError: An observation is larger than a message may be.
    """

    def __init__(
        self,
        service: PolicyService,
        spec: EpisodeSpec,
        current_run: Callable[[], int],
        stopping: threading.Event,
        most: int,
    ) -> None:
        size = len(spec.image_keys) * int(np.prod(spec.image_shape))
        if size > MAX_MESSAGE_SIZE // 2:
            raise ValueError(
                f"Images of {size} bytes an observation are too large to be sent to a policy server "
                f"({MAX_MESSAGE_SIZE // 2}). Use fewer or smaller cameras, or algorithm.inference=local."
            )
        self._policy, self._batcher = service.acting, service.batcher
        self._spec, self._current_run, self._stopping = spec, current_run, stopping
        self._instructions: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self._most, self._room = most, threading.BoundedSemaphore(most)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server is given."""
        methods = {act.ACT: grpc.unary_unary_rpc_method_handler(self._act)}
        return grpc.method_handlers_generic_handler(act.SERVICE, methods)

    def _act(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        if not self._room.acquire(blocking=False):
            has = f"has {self._most} questions already, twice algorithm.max_actors"
            _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"The policy server {has}.")
        try:
            return self._answered(data, context)
        finally:
            self._room.release()

    def _answered(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            question, observation, tokens = act.decode_question(data, self._spec)
        except ProtocolError as error:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        tokens = self._instruction(question.tokens, tokens)
        if tokens is None:
            _abort(context, grpc.StatusCode.NOT_FOUND, act.UNKNOWN_TOKENS)
        until = time.monotonic() + min(_LONGEST_S, context.time_remaining())
        self._wait_for(question, until, context)
        asked = Asked(
            observation.images,
            tokens,
            observation.proprio,
            question.domain_id,
            question.noise_key,
            question.chunk,
            question.noise_free,
        )
        acted = self._answer(question.actor, asked, context)
        answer = Answer(acted.denoise_step, acted.run, acted.version, acted.feature_key)
        return act.encode_answer(answer, Chunk(acted.action, acted.latents, acted.log_prob))

    def _instruction(self, name: str, tokens: np.ndarray | None) -> np.ndarray | None:
        with self._lock:
            if tokens is not None:
                self._instructions[name] = tokens
                if len(self._instructions) > _KNOWN_INSTRUCTIONS:
                    self._instructions.popitem(last=False)
            return self._instructions.get(name)

    def _wait_for(self, question: Question, until: float, context: grpc.ServicerContext) -> None:
        def ready(run: int, version: int) -> bool:
            past = version > 0 and question.run != self._current_run()
            return past or (run == question.run and version >= question.version)

        while not self._policy.wait_for(ready, _POLL_S):
            self._go_on(context)
            if time.monotonic() > until:
                has = f"has version {self._policy.acts[1]} of the parameters, not yet {question.version}"
                _abort(context, grpc.StatusCode.UNAVAILABLE, f"The policy server {has}.")

    def _answer(self, actor: str, asked: Asked, context: grpc.ServicerContext) -> Acted:
        try:
            answer = self._batcher.submit(actor, asked)
        except ClosedError:
            _abort(context, grpc.StatusCode.UNAVAILABLE, _STOPS)
        while True:
            try:
                return answer.result(_POLL_S)
            except NotYetError:
                if not context.is_active():
                    answer.cancel()
                self._go_on(context)
            except CancelledError:
                _abort(context, grpc.StatusCode.UNAVAILABLE, _STOPS)
            except Exception as error:
                logger.exception("A batch could not be answered.")
                _abort(context, grpc.StatusCode.INTERNAL, f"The policy server failed: {error}")

    def _go_on(self, context: grpc.ServicerContext) -> None:
        if self._stopping.is_set() or not context.is_active():
            _abort(context, grpc.StatusCode.UNAVAILABLE, _STOPS)


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, details: str) -> NoReturn:
    context.abort(code, details)
    raise AssertionError("abort raises")
