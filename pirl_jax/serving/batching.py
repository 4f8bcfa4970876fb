"""Questions of many clients, answered in batches: by one thread, in turn, and never too late for a batch."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Self


class ClosedError(RuntimeError):
    """Nobody answers any more."""


@dataclass
class Totals:
    """What a batcher has done since it began."""

    answered: int = 0
    batches: int = 0
    waited_s: float = 0.0
    """Summed over the questions: from their arrival to the beginning of their batch."""
    answering_s: float = 0.0
    """Summed over the batches."""
    first: float | None = None
    """When the first question came, by ``time.monotonic``."""
    last: float = 0.0
    """When the last batch was answered."""


@dataclass
class _Question[Q, A]:
    asked: Q
    future: Future[A] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher[Q, A]:
    """Collects questions and answers them together.

    A batch begins when it is full, when everyone who may ask has asked, or when its oldest question has
    waited for ``max_wait_s``; what arrives while a batch is answered makes the next. Each client has one
    place in a batch before any has a second. A context manager: on leaving, what waits is cancelled.

    Args:
        answer: Questions, at most ``max_batch``, → their answers, in order. Called by one thread.
        max_batch: Questions answered together.
        max_wait_s: Seconds that a question waits for others.
        clients: How many may be asking at the moment; None: not known, and nobody is missed.

    Attributes:
        totals: For metrics.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A]],
        max_batch: int,
        max_wait_s: float,
        clients: Callable[[], int] | None = None,
    ) -> None:
        self._answer, self._clients = answer, clients
        self._max_batch, self._max_wait_s = max_batch, max_wait_s
        self._waiting: OrderedDict[str, deque[_Question[Q, A]]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="policy-server", daemon=True)
        self.totals = Totals()

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Cancel what waits, and finish the batch that runs."""
        with self._changed:
            self._closed = True
            for questions in self._waiting.values():
                for question in questions:
                    question.future.cancel()
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join()

    def submit(self, client: str, asked: Q) -> Future[A]:
        """Put a question; who does not want the answer any more cancels the future.

        Raises:
            ClosedError: Nobody answers any more.
        """
        question = _Question[Q, A](asked)
        with self._changed:
            if self._closed:
                raise ClosedError
            self._waiting.setdefault(client, deque()).append(question)
            self._changed.notify_all()
        return question.future

    def _run(self) -> None:
        while batch := self._next():
            started = time.monotonic()
            try:
                answers = self._answer([question.asked for question in batch])
            except Exception as error:
                for question in batch:
                    question.future.set_exception(error)
                continue
            for question, answer in zip(batch, answers, strict=True):
                question.future.set_result(answer)
            self.totals.answered += len(batch)
            self.totals.batches += 1
            self.totals.waited_s += sum(started - question.since for question in batch)
            self.totals.answering_s += time.monotonic() - started
            self.totals.first = self.totals.first or batch[0].since
            self.totals.last = time.monotonic()

    def _next(self) -> list[_Question[Q, A]]:
        """Wait for a batch; an empty one once closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                while not self._closed and (missing := self._may_wait_for()) > 0:
                    self._changed.wait(missing)
                if self._closed:
                    return []
                batch = self._take()
            if batch:  # else all of them had been cancelled
                return batch

    def _may_wait_for(self) -> float:
        """Return for how many seconds more others may join."""
        count = self._count()
        if not count or count >= self._max_batch:
            return 0.0
        if self._clients is not None and len(self._waiting) >= self._clients():
            return 0.0
        oldest = min(questions[0].since for questions in self._waiting.values())
        return oldest + self._max_wait_s - time.monotonic()

    def _take(self) -> list[_Question[Q, A]]:
        batch: list[_Question[Q, A]] = []
        while self._waiting and len(batch) < self._max_batch:
            client, questions = self._waiting.popitem(last=False)
            question = questions.popleft()
            if questions:
                self._waiting[client] = questions  # behind all others
            if question.future.set_running_or_notify_cancel():
                batch.append(question)
        return batch

    def _count(self) -> int:
        return sum(map(len, self._waiting.values()))
