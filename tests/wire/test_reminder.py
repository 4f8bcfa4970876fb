"""What is said while a learner waits."""

import dataclasses
import logging
import threading

import pytest

from bridge.wire.protocol import ActorStatus, Status
from bridge.wire.reminder import Reminder, status_in_words

STANDING = Status(
    run=7,
    update=3,
    updates=10,
    version=4,
    arrived=37,
    awaited=64,
    open=49,
    playing=12,
    actors=[ActorStatus(str(n), 0, 0, 4) for n in range(6)],
)


def with_(**changes):
    return dataclasses.replace(STANDING, **changes)


@pytest.fixture
def heard(caplog):
    caplog.set_level(logging.INFO)
    standing = [STANDING]
    reminder = Reminder(lambda: standing[0], threading.Event())

    def look(status, *seconds):
        caplog.clear()
        standing[0] = status
        for now in seconds:
            reminder.look(1e6 + now)
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    return look


WAITS = ("INFO", "update 4 waits: 37 of 64 episodes are there, 6 actors, 12 being played")


def test_each_minute_without_an_update_what_is_awaited_is_said(heard):
    assert heard(STANDING, 0, 30, 59) == []
    assert heard(STANDING, 60, 61, 119) == [WAITS]
    assert heard(STANDING, 120) == [WAITS]


def test_how_long_it_will_take_is_said_once_some_have_come(heard):
    """30 in a minute, and 24 are missing."""
    heard(with_(arrived=10), 0)
    ((_, line),) = heard(with_(arrived=40), 60)
    assert line.endswith("6 actors, 12 being played; about 48 s until all are there")
    ((_, line),) = heard(with_(arrived=64), 120)
    assert line.endswith("learns from its 64 episodes")


def test_an_update_a_minute_needs_no_words(heard):
    for update in range(5):
        assert heard(with_(update=update), 50 * update, 50 * update + 40) == []


def test_what_is_there_is_learned_from():
    assert status_in_words(with_(arrived=64)) == "update 4 learns from its 64 episodes"
    assert status_in_words(with_(actors=STANDING.actors[:1])).endswith("1 actor, 12 being played")


def test_an_evaluation_that_is_under_way_is_said():
    under_way = with_(evaluation=50, evaluated=12)
    assert status_in_words(under_way).endswith("12 being played; of an evaluation 12 of 50 are over")
    assert status_in_words(with_(arrived=64, evaluation=50, evaluated=12)).endswith("12 of 50 are over")
    assert "evaluation" not in status_in_words(with_(evaluation=50, evaluated=50))


def test_without_an_actor_for_ten_minutes_that_is_said_loudly_and_again(heard):
    heard(STANDING, 0)
    alone = with_(actors=[], playing=0)
    assert [level for level, _ in heard(alone, *range(0, 600, 30))] == ["INFO"] * 9
    assert [level for level, _ in heard(alone, 600)] == ["ERROR"]
    assert "no actor has been there for 10 minutes" in heard(alone, *range(601, 1201))[-1][1]


def test_before_the_first_push_there_is_nothing_to_wait_for(heard):
    assert heard(with_(version=None, actors=[]), *range(0, 5000, 30)) == []
