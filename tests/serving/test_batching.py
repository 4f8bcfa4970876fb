"""Questions become batches: full, fair, prompt, and none is lost."""

import threading
import time

import pytest

from pirl_jax.serving.batching import Batcher, ClosedError


class Answers:
    """Doubles what is asked; each batch waits for ``go``."""

    def __init__(self, open_=True):
        self.batches = []
        self.go = threading.Event()
        self.began = threading.Semaphore(0)
        if open_:
            self.go.set()

    def __call__(self, asked):
        self.began.release()
        self.go.wait(10)
        self.batches.append(list(asked))
        return [2 * each for each in asked]


def batcher(answers, max_batch=4, max_wait_s=10.0, clients=None):
    return Batcher(answers, max_batch, max_wait_s, clients)


def test_a_full_batch_does_not_wait():
    answers = Answers()
    with batcher(answers) as asked:
        futures = [asked.submit(str(i), i) for i in range(4)]
        assert [future.result(5) for future in futures] == [0, 2, 4, 6]
    assert answers.batches == [[0, 1, 2, 3]]
    assert (asked.totals.answered, asked.totals.batches) == (4, 1)


def test_nobody_is_waited_for_who_is_not_playing():
    answers, started = Answers(), time.monotonic()
    with batcher(answers, clients=lambda: 2) as asked:
        futures = [asked.submit("a", 1), asked.submit("b", 2)]
        assert [future.result(5) for future in futures] == [2, 4]
    assert time.monotonic() - started < 5  # and not max_wait_s


def test_a_question_waits_no_longer_than_it_may():
    answers = Answers()
    with batcher(answers, max_wait_s=0.05) as asked:
        assert asked.submit("a", 1).result(5) == 2
    assert answers.batches == [[1]]


def test_what_arrives_during_a_batch_makes_the_next():
    answers = Answers(open_=False)
    with batcher(answers, max_wait_s=0.0) as asked:
        first = asked.submit("a", 0)
        answers.began.acquire()
        others = [asked.submit(str(i), i) for i in (1, 2, 3)]
        answers.go.set()
        assert [future.result(5) for future in (first, *others)] == [0, 2, 4, 6]
    assert answers.batches == [[0], [1, 2, 3]]


def test_who_asks_much_takes_nobody_elses_place():
    answers = Answers(open_=False)
    with batcher(answers, max_batch=2, max_wait_s=0.0) as asked:
        futures = [asked.submit("x", 0)]
        answers.began.acquire()
        futures += [asked.submit("greedy", i) for i in (1, 2, 3)]
        futures += [asked.submit("modest", 10)]
        answers.go.set()
        [future.result(5) for future in futures]
    assert answers.batches == [[0], [1, 10], [2], [3]] or answers.batches == [[0], [1, 10], [2, 3]]


def test_a_question_that_nobody_wants_any_more_is_not_answered():
    answers = Answers(open_=False)
    with batcher(answers, max_wait_s=0.0) as asked:
        first = asked.submit("a", 0)
        answers.began.acquire()
        unwanted, wanted = asked.submit("b", 1), asked.submit("c", 2)
        assert unwanted.cancel()
        answers.go.set()
        assert (first.result(5), wanted.result(5)) == (0, 4)
    assert answers.batches == [[0], [2]]


def test_a_batch_that_fails_fails_alone():
    def answer(asked):
        if 13 in asked:
            raise RuntimeError("bad luck")
        return asked

    with batcher(answer, max_batch=1) as asked:
        bad, good = asked.submit("a", 13), asked.submit("b", 1)
        with pytest.raises(RuntimeError, match="bad luck"):
            bad.result(5)
        assert good.result(5) == 1


def test_what_waits_at_the_end_is_cancelled():
    with batcher(Answers()) as asked:
        left = asked.submit("a", 1)
    assert left.cancelled()
    with pytest.raises(ClosedError):
        asked.submit("a", 2)
