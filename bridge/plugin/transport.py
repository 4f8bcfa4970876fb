"""A gRPC channel to the learner that survives the learner.

LeRobot's actor opens three endless calls and never re-opens them: when its learner restarts, it acts on with
old weights and throws its episodes away. ``install`` puts a ``LearnerChannel`` in place of the channel the
actor opens:

- *StreamParameters* is re-opened with back-off. Its messages stay here: the algorithm takes the newest when
  the episode that the learner has assigned wants it, and LeRobot's own queue would keep them a second time.
- *SendTransitions* and *SendInteractions* become one call per complete message, repeated until the learner's
  reply acknowledges it, under a message id (``pirl-message-id`` metadata) by which the learner recognises
  repetitions.
- A second service of the learner's says what to play (``assigned``).
- All waiting ends when the actor is told to stop.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import grpc
from lerobot.transport import services_pb2 as _services_pb2
from lerobot.utils.process import ProcessSignalHandler

from bridge.plugin import seams
from bridge.plugin.assigned import AssignedEpisodes, Newest, refuse
from bridge.trust.address import is_near
from bridge.trust.dialer import Dialer
from bridge.wire.protocol import ACTOR_KEY, MESSAGE_ID_KEY, NOTICES_KEY
from pirl_jax.console.log import log_to_console

services_pb2: Any = _services_pb2  # protobuf makes its attributes at run time

_PATIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""The learner is away or busy: repeat for as long as the actor runs."""
_DOUBTFUL = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})
"""A fault of the learner's or of the message's: repeat a few times."""
_MAX_DOUBTFUL = 5
_FIRST_DELAY, _LAST_DELAY = 0.2, 2.0  # s, between repetitions
_SEND_TIMEOUT = 60.0  # s, for one message
_READY_TIMEOUT = 10.0  # s; LeRobot's own call has none and hangs on a server without a free worker
_FAREWELL = 3.0  # s, to hand over what is still unsent when the actor stops

_CONNECTION = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.min_reconnect_backoff_ms", 10000),  # also the time a connection attempt may take
    # LeRobot's options switch gRPC's own retries on. The channel below repeats by itself, and a stream that
    # gRPC retries while its server goes away can hang for ever: nothing ends it, no cancelling either (1.85).
    ("grpc.enable_retries", 0),
    # These notice a connection that is dead without having been closed: a lost route, a suspended host.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_WITHOUT_PROXY = ("grpc.enable_http_proxy", 0)
"""For a learner on this machine or in its private network: a proxy of the environment does not lead there."""

log = logging.getLogger(__name__)


class Outage:
    """Back-off between attempts, and one log line an outage instead of one an attempt."""

    def __init__(self, what: str, stop: threading.Event) -> None:
        self._what = what
        self._stop = stop
        self._delay = _FIRST_DELAY
        self._since: float | None = None

    def wait(self, reason: str) -> bool:
        """Wait before the next attempt; False if the actor was told to stop meanwhile."""
        if self._since is None:
            self._since = time.monotonic()
            log.warning("%s: %s. Trying again until there is an answer.", self._what, reason.rstrip("."))
        stopped = self._stop.wait(self._delay)
        self._delay = min(2 * self._delay, _LAST_DELAY)
        return not stopped

    def over(self) -> None:
        """Note a success."""
        if self._since is not None:
            log.info("%s: answered again after %.1f s.", self._what, time.monotonic() - self._since)
        self._since, self._delay = None, _FIRST_DELAY


class Spool:
    """Messages that no learner has acknowledged yet, oldest first."""

    def __init__(self) -> None:
        self._messages: deque[list[Any]] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: list[Any]) -> None:
        """Append a message."""
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def first(self) -> list[Any] | None:
        """Return the oldest message, waiting for one; None once the spool is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed)
            return self._messages[0] if self._messages else None

    def drop_first(self) -> None:
        """Forget the oldest message."""
        with self._changed:
            self._messages.popleft()
            self._changed.notify_all()

    def close(self) -> None:
        """Accept the end: ``first`` no longer waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class LearnerChannel:
    """What ``LearnerServiceStub`` needs of a ``grpc.Channel``, on top of a plain one.

    Args:
        channel: The plain channel.
        stop: Set when the actor should end; every call then returns within seconds.
        notices: Whether new versions of the parameters are only to be told of.
        dialer: By which policy servers are reached; None: as without any security.
        address: Of the learner, ``host:port``, to look why it is not reached; "": nobody looks.

    Attributes:
        plain: As given.
        dialer: As given.
        parameters: The learner's.
        episodes: What the learner wants played.
        stop: As given.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        stop: threading.Event,
        notices: bool = False,
        dialer: Dialer | None = None,
        address: str = "",
    ) -> None:
        self.plain, self._notices = channel, notices
        self.dialer, self._address = dialer or Dialer(), address
        self.stop = stop
        self._actor = uuid.uuid4().hex
        outage = Outage("Assignments", stop)
        self.episodes = AssignedEpisodes(channel, self._actor, stop, outage.wait, outage.over)
        self.parameters = Newest()
        self._numbers = count()
        self._spools: dict[str, Spool] = {}
        self._calls: set[Any] = set()
        self._calls_lock = threading.Lock()
        threading.Thread(target=self._cancel_on_stop, name="pirl-stop", daemon=True).start()

    def unary_unary(self, method: str, **kwargs: Any) -> Callable[..., Any]:
        """Return a call with a deadline (LeRobot's ``Ready`` has none); it ends an actor that is refused."""
        call = self.plain.unary_unary(method, **kwargs)

        def ask(request: Any, timeout: float = _READY_TIMEOUT, **rest: Any) -> Any:
            try:
                return call(request, timeout=timeout, **rest)
            except grpc.RpcError as error:
                self._end_if_refused(error)
                raise

        return ask

    def unary_stream(self, method: str, **kwargs: Any) -> Callable[..., Iterator[Any]]:
        """Return a streaming call that is re-opened whenever it ends, and yields nothing (see above)."""
        call = self.plain.unary_stream(method, **kwargs)
        return lambda request, **_: self._receive(call, request, method.rsplit("/", 1)[-1])

    def stream_unary(self, method: str, **kwargs: Any) -> Callable[..., Any]:
        """Return a call that sends each complete message of its stream by itself, until acknowledged."""
        call = self.plain.stream_unary(method, **kwargs)
        name = method.rsplit("/", 1)[-1]
        spool = self._spools.setdefault(name, Spool())
        return lambda requests, **_: self._deliver(call, requests, name, spool)

    def close(self) -> None:
        """Close the plain channel."""
        self.plain.close()

    def _end_if_refused(self, error: Any) -> None:
        """End an actor that will be refused again: LeRobot's would ask for a minute, and exit with 0.

        Raises:
            SystemExit: Without the run's token, or where one side speaks TLS and the other does not.
        """
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            refuse(f"the learner refused this actor: {error.details()}")
        away = error.code() is grpc.StatusCode.UNAVAILABLE and self._address
        if away and (why := self.dialer.why_not(self._address)):
            refuse(f"the learner cannot be reached: {why}")

    def _cancel_on_stop(self) -> None:
        self.stop.wait()
        with self._calls_lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def _receive(self, open_call: Callable[..., Any], request: Any, name: str) -> Iterator[Any]:
        outage = Outage(name, self.stop)
        doubts = 0
        metadata = ((ACTOR_KEY, self._actor), *([(NOTICES_KEY, "1")] if self._notices else []))
        while not self.stop.is_set():
            call = open_call(request, metadata=metadata)
            with self._calls_lock:
                self._calls.add(call)
                if self.stop.is_set():  # and _cancel_on_stop may have been here before
                    call.cancel()
            buffer: list[bytes] = []
            try:
                for message in call:
                    outage.over()
                    doubts = 0
                    self._collect(buffer, message)
                reason = "the stream ended"
            except grpc.RpcError as error:
                code = error.code()
                if code in _DOUBTFUL:
                    doubts += 1
                if code not in _PATIENT and not (code in _DOUBTFUL and doubts <= _MAX_DOUBTFUL):
                    raise
                reason = f"{code.name} {error.details()}"
            finally:
                call.cancel()
                with self._calls_lock:
                    self._calls.discard(call)
            if self.stop.is_set() or not outage.wait(reason):
                break
        return iter(())

    def _collect(self, buffer: list[bytes], message: Any) -> None:
        if message.transfer_state == services_pb2.TRANSFER_BEGIN:
            buffer.clear()
        buffer.append(message.data)
        if message.transfer_state == services_pb2.TRANSFER_END:
            self.parameters.put(b"".join(buffer))
            buffer.clear()

    def _deliver(self, call: Callable[..., Any], requests: Iterable[Any], name: str, spool: Spool) -> Any:
        sender = threading.Thread(
            target=self._drain, args=(call, name, spool), name=f"pirl-{name}", daemon=True
        )
        sender.start()
        message: list[Any] = []
        try:
            for part in requests:
                message.append(part)
                if part.transfer_state == services_pb2.TRANSFER_END:
                    spool.put(message)
                    message = []
        except (ValueError, OSError):
            # The actor's natural end: it closes its queues without setting its event, and would then wait for
            # ever for its threads.
            log.info("%s: the actor closed its queue.", name)
        spool.close()
        sender.join(_FAREWELL)
        self.stop.set()
        if len(spool):
            log.warning("%s: %d messages were still unsent when the actor stopped.", name, len(spool))
        return services_pb2.Empty()

    def _drain(self, call: Callable[..., Any], name: str, spool: Spool) -> None:
        while (message := spool.first()) is not None:
            if not self._send(call, name, message):
                return
            spool.drop_first()
            if name == "SendTransitions":
                self.episodes.acknowledged()

    def _send(self, call: Callable[..., Any], name: str, message: list[Any]) -> bool:
        """Send one message until it is acknowledged or refused; False if the actor stopped first."""
        metadata = ((MESSAGE_ID_KEY, f"{self._actor}-{next(self._numbers)}"),)
        outage = Outage(name, self.stop)
        doubts = 0
        while True:
            try:
                timeout = _FAREWELL if self.stop.is_set() else _SEND_TIMEOUT
                call(iter(message), metadata=metadata, timeout=timeout)
            except grpc.RpcError as error:
                code = error.code()
                doubts += code in _DOUBTFUL
                if code not in _PATIENT and not (code in _DOUBTFUL and doubts <= _MAX_DOUBTFUL):
                    log.error("%s: the learner refused a message: %s %s", name, code.name, error.details())
                    return True
                if not outage.wait(f"{code.name} {error.details()}"):
                    return False
            else:
                outage.over()
                return True


def open_channel(
    target: str, options: Any = None, compression: Any = None, dialer: Dialer | None = None
) -> grpc.Channel:
    """Open a plain channel for a ``LearnerChannel``: the caller's options, but quick to reconnect."""
    connection = (*_CONNECTION, *((_WITHOUT_PROXY,) if is_near(target) else ()))
    ours = dict(connection)
    theirs = [(name, value) for name, value in options or () if name not in ours]
    return (dialer or Dialer()).open(target, [*theirs, *connection], compression)


_current: LearnerChannel | None = None
_stop: Any = None  # the actor's own event, once its signal handler has made it
_open_plain = grpc.insecure_channel
_init_signal_handler = ProcessSignalHandler.__init__


def current() -> LearnerChannel | None:
    """Return this process's channel to the learner; None where there is none (tests, the learner itself)."""
    return _current


def is_actor() -> bool:
    """Tell whether this process runs LeRobot's actor."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return "lerobot.rl.actor" in sys.modules or (spec is not None and spec.name == "lerobot.rl.actor")


def install(address: str, notices: bool = False, dialer: Dialer | None = None) -> None:
    """Make the next plain channel opened to ``address`` a ``LearnerChannel``; the last call counts.

    ``grpc.insecure_channel`` is the seam because LeRobot's actor runs as ``__main__``, where its own
    functions cannot be replaced by name. The event that stops the channel is the actor's own, which LeRobot
    creates in its signal handler before it opens the channel.

    Raises:
        SeamError: LeRobot has moved.
    """

    def insecure_channel(target: str, options: Any = None, compression: Any = None) -> Any:
        global _current
        if target != address:
            return _open_plain(target, options, compression)
        channel = open_channel(target, options, compression, dialer)
        stop = threading.Event() if _stop is None else _stop
        _current = LearnerChannel(channel, stop, notices, dialer, address)
        return _current

    def init_signal_handler(handler: ProcessSignalHandler, *args: Any, **kwargs: Any) -> None:
        global _stop
        _init_signal_handler(handler, *args, **kwargs)
        _stop = handler.shutdown_event
        log_to_console(also=("root",))  # LeRobot has just set up its own; its log file stays as it is

    seams.install(seams.CHANNEL, grpc, insecure_channel)
    seams.install(seams.SIGNAL_HANDLER, ProcessSignalHandler, init_signal_handler)


def confirm() -> None:
    """Make sure that this actor opened its channel, and made its stop event, by way of this plugin.

    An actor for which that is not so looks healthy until its learner restarts.

    Raises:
        SeamError: It is not so, or another seam into LeRobot did not take effect.
    """
    seams.confirm_installed()
    if _current is None:
        raise seams.moved(seams.CHANNEL, "this actor opened its channel to the learner past the plugin")
    if _current.stop is not _stop:
        raise seams.moved(
            seams.SIGNAL_HANDLER, "this actor opened its channel before it made the event that stops it"
        )
