"""What stands before every service on a port: the token, and one host's share of the server."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import grpc

from bridge.trust.limits import Limits
from bridge.trust.token import METADATA_KEY, VARIABLE, as_metadata

CHECK = "/grpc.health.v1.Health/Check"
"""Answered without a token, for whatever looks after the process."""

_MISSING = f"this run asks for its token: set {VARIABLE}, or algorithm.security.token_file, to the learner's"
_WRONG = f"this is not the run's token: set {VARIABLE}, or algorithm.security.token_file, to the learner's"
_UNINVITED_CHECKS, _CHECK_S = 8, 5.0
_WARN_EVERY_S = 60.0
_PAUSE_S = 0.2

logger = logging.getLogger(__name__)


class Guard(grpc.ServerInterceptor):
    """Refuses whoever does not show the token, and holds everyone to the limits.

    A call counts from its first header, not from its first message: a client that never sends one holds a
    thread all the same. That is why unary calls are taken as streams here; on the wire they are the same.

    Args:
        token: Of the run; None: nobody needs one.
        limits: Of one host.
    """

    def __init__(self, token: str | None, limits: Limits) -> None:
        self._shown = None if token is None else as_metadata(token)[1].encode()
        self._limits = limits
        self._uninvited = threading.BoundedSemaphore(_UNINVITED_CHECKS)
        self._refused, self._told, self._lock = 0, float("-inf"), threading.Lock()
        self._missing, self._wrong = self._refusing(_MISSING), self._refusing(_WRONG)

    def intercept_service(self, continuation: Callable[..., Any], handler_call_details: Any) -> Any:
        """Return who answers a call: the service, or nobody but a word."""
        shown = [
            value for key, value in handler_call_details.invocation_metadata or () if key == METADATA_KEY
        ]
        invited = self._shown is None or (len(shown) == 1 and self._is_token(shown[0]))
        if invited:
            handler = continuation(handler_call_details)
            return None if handler is None else self._held(handler)
        if handler_call_details.method == CHECK:
            return self._bounded(self._held(continuation(handler_call_details)))
        return self._wrong if shown else self._missing

    def _is_token(self, shown: str | bytes) -> bool:
        shown = shown.encode() if isinstance(shown, str) else shown
        return self._shown is not None and hmac.compare_digest(shown, self._shown)

    def _refusing(self, word: str) -> grpc.RpcMethodHandler:
        def refuse(_: Iterator[Any], context: grpc.ServicerContext) -> None:
            self._note_refusal(context.peer())
            context.abort(grpc.StatusCode.UNAUTHENTICATED, word)

        return grpc.stream_unary_rpc_method_handler(refuse)  # a unary one would wait for a message first

    def _note_refusal(self, peer: str) -> None:
        with self._lock:
            self._refused += 1
            now, count = time.monotonic(), self._refused
            if now - self._told < _WARN_EVERY_S:
                return
            self._told, self._refused = now, 0
        logger.warning("Refused %d calls without the run's token, the last from %s.", count, host_of(peer))

    def _held(self, handler: Any) -> grpc.RpcMethodHandler:
        """Return a handler whose calls and messages are counted."""
        serve = _behaviour(handler)
        whole = handler.request_streaming

        def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            host = host_of(context.peer())
            with self._limits.call(host) as room:
                self._refuse_unless(room, host, context)
                arrived = self._paced(requests, host, context)
                return serve(arrived if whole else _only(arrived, context), context)

        def answers(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            host = host_of(context.peer())
            with self._limits.call(host) as room:
                self._refuse_unless(room, host, context)
                arrived = self._paced(requests, host, context)
                yield from serve(arrived if whole else _only(arrived, context), context)

        forms = handler.request_deserializer, handler.response_serializer
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(answers, *forms)
        return grpc.stream_unary_rpc_method_handler(answer, *forms)

    def _refuse_unless(self, room: bool, host: str, context: grpc.ServicerContext) -> None:
        if not room:
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{host} has as many calls open as one host may have: what is left is for others",
            )

    def _paced(self, requests: Iterator[Any], host: str, context: grpc.ServicerContext) -> Iterator[Any]:
        for message in requests:
            until = time.monotonic() + self._limits.pause(host, _size(message))
            while context.is_active() and (left := until - time.monotonic()) > 0:
                time.sleep(min(left, _PAUSE_S))
            yield message

    def _bounded(self, handler: Any) -> grpc.RpcMethodHandler:
        """Return a handler that the uninvited may call: few at a time, and none of them for long."""

        def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            if not self._uninvited.acquire(blocking=False):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many health checks at a time")
            timer = threading.Timer(_CHECK_S, context.cancel)
            timer.daemon = True
            timer.start()
            try:
                return handler.stream_unary(requests, context)
            finally:
                timer.cancel()
                self._uninvited.release()

        return grpc.stream_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


def host_of(peer: str) -> str:
    """Return the host of a gRPC peer, as ``ipv4:10.0.0.1:50000`` or ``ipv6:%5B::1%5D:50000``."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]") or peer


def _behaviour(handler: Any) -> Callable[..., Any]:
    kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    return next(serve for kind in kinds if (serve := getattr(handler, kind)) is not None)


def _only(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
    for message in messages:
        return message
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a call of this method carries a message")
    raise AssertionError("abort raises")


def _size(message: Any) -> int:
    return len(message) if isinstance(message, bytes) else message.ByteSize()
