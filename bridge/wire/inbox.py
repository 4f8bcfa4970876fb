"""Chunks off the wire → messages → decoded, accepted, queued episodes; and what was dropped on the way."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
from lerobot.transport.utils import TransferState

from bridge.wire.archive import TransitionError
from pirl_jax.rollout.episode import Episode
from pirl_jax.rollout.evaluation import is_evaluation

logger = logging.getLogger(__name__)

_KNOWN_IDS = 65536
_POLL_S = 0.1
_WARN_EVERY_S = 60.0


class Counts:
    """Counters shared by gRPC's threads, and the log of drops: one line per reason and minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = Counter(
            messages=0, episodes=0, duplicates=0, interactions=0, bytes_received=0, bytes_sent=0
        )
        self._dropped: Counter[str] = Counter()
        self._warned: dict[str, tuple[float, int]] = {}

    def add(self, **amounts: int) -> None:
        """Add to the named totals."""
        with self._lock:
            self._totals.update(amounts)

    def drop(self, reason: str, text: str) -> None:
        """Count a dropped message, and say so unless this reason was logged within the last minute."""
        now = time.monotonic()
        with self._lock:
            self._dropped[reason] += 1
            total = self._dropped[reason]
            last, told = self._warned.get(reason, (-float("inf"), 0))
            if now - last < _WARN_EVERY_S:
                return
            self._warned[reason] = (now, total)
        unsaid = f" ({total - told - 1} more like it went unsaid)" if total - told > 1 else ""
        logger.warning("Dropped a message [%s]: %s%s", reason, text, unsaid)

    def snapshot(self) -> dict[str, Any]:
        """Return the totals, and the drops by reason under `dropped`."""
        with self._lock:
            return {**self._totals, "dropped": dict(self._dropped)}


def assemble(chunks: Iterable[Any], max_bytes: int, counts: Counts, peer: str) -> Iterator[bytes | None]:
    """Join the chunks BEGIN, MIDDLE…, END of LeRobot's wire into messages.

    Like LeRobot's own receiver it takes a message without a BEGIN (a short one is a single END) and starts
    over at every BEGIN. What a sender leaves unfinished is discarded and counted.

    Yields:
        Each complete message, and None in place of one longer than `max_bytes`, whose remaining chunks are
        skipped without being kept.
    """
    parts: list[bytes] = []
    size, skipping = 0, False
    try:
        for chunk in chunks:
            counts.add(bytes_received=len(chunk.data))
            state = chunk.transfer_state
            if state == TransferState.TRANSFER_BEGIN:
                if parts:
                    counts.drop("partial", f"{peer} began another message after {size} bytes of one.")
                parts, size, skipping = [], 0, False
            elif state not in (TransferState.TRANSFER_MIDDLE, TransferState.TRANSFER_END):
                counts.drop("framing", f"{peer} sent a chunk of unknown transfer state {state}.")
                parts, skipping = [], True
            if not skipping:
                size += len(chunk.data)
                if chunk.data:
                    parts.append(chunk.data)
                if size > max_bytes:
                    counts.drop("oversize", f"{peer} sent a message longer than {max_bytes} bytes.")
                    parts, skipping = [], True
                    yield None
            if state == TransferState.TRANSFER_END:
                message = None if skipping else b"".join(parts)
                parts, size, skipping = [], 0, False
                if message is not None:
                    yield message
    except grpc.RpcError:
        logger.info("Actor %s left.", peer)
    if size and not skipping:
        counts.drop("partial", f"{peer} left after {size} bytes of a message.")


class Inbox:
    """Decodes messages and queues their episodes, each message id once; those of evaluations are not queued.

    Args:
        decode: Message bytes → episode; raises `TransitionError` for a message to drop.
        accept: Episode → reason to drop it, or None.
        counts: Where to count.
        stopping: Set when the server stops: all waiting ends.
        lose: Told the actor whose message could not be read.
        take: Told the actor whose episode was taken.
    """

    def __init__(
        self,
        decode: Callable[[bytes], Episode],
        accept: Callable[[Episode], str | None],
        counts: Counts,
        stopping: threading.Event,
        lose: Callable[[str], None] = lambda actor: None,
        take: Callable[[str], None] = lambda actor: None,
    ):
        self._decode = decode
        self._accept = accept
        self._lose, self._take = lose, take
        self._episodes: queue.Queue[Episode] = queue.Queue()
        self._counts = counts
        self._stopping = stopping
        self._handled = threading.Condition()
        self._in_flight: set[str] = set()
        self._known: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return self._episodes.qsize()

    def get(self, timeout: float | None = None) -> Episode | None:
        """Return the oldest episode; None after `timeout` seconds without one, or once the server stops."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while not self._stopping.is_set():
            try:
                return self._episodes.get(timeout=min(_POLL_S, max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= deadline:
                    return None
        return None

    def put(self, message: bytes, message_id: str | None, peer: str) -> bool:
        """Queue a message's episode, or drop it for good, unless its id was seen before.

        False means that the server stops and has not looked at it. While the same message is being looked at
        for another call, this one waits for the outcome.
        """
        if message_id is None:
            self._handle(message, message_id, peer)
            return True
        with self._handled:
            while message_id in self._in_flight:
                if self._stopping.is_set():
                    return False
                self._handled.wait(_POLL_S)
            if message_id in self._known:
                self._counts.add(duplicates=1)
                return True
            self._in_flight.add(message_id)
        handled = False
        try:
            self._handle(message, message_id, peer)
            handled = True
        finally:
            with self._handled:
                self._in_flight.discard(message_id)
                if handled:
                    self._known[message_id] = None
                if len(self._known) > _KNOWN_IDS:
                    self._known.popitem(last=False)
                self._handled.notify_all()
        return True

    def lose(self, message_id: str | None) -> None:
        """Note that a message's episode will not be queued, whatever it was."""
        if message_id is not None:
            self._lose(_sender(message_id))

    def _handle(self, message: bytes, message_id: str | None, peer: str) -> None:
        try:
            episode = self._decode(message)
        except TransitionError as error:
            self._counts.drop(error.reason, f"{error} (from {peer})")
            self.lose(message_id)
            return
        reason = self._accept(episode)
        if reason is not None:
            self._counts.drop(reason, f"episode {episode.number} (from {peer}).")
            return
        if not is_evaluation(episode.number):  # else how it ended is all that was wanted of it
            self._episodes.put(episode)
            self._counts.add(episodes=1)
        if message_id is not None:
            self._take(_sender(message_id))


def _sender(message_id: str) -> str:
    return message_id.rpartition("-")[0]
