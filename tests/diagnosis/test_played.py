"""The doctor looks at what has been played, however long that takes and whoever stops it."""

import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pirl_jax import doctor
from pirl_jax.doctor import played
from pirl_jax.ending import first_is_noted

EPISODE = SimpleNamespace(version=np.array([1]))


class Actor:
    """One that plays on, or has failed."""

    log = "actor.log"

    def __init__(self, failed=False):
        self._failed = failed

    def check(self, must_run):
        if self._failed:
            raise RuntimeError("the actor failed")


@pytest.fixture
def look(monkeypatch):
    """Play: one of these comes each second, then nothing."""

    def look(comes, patience=100.0, asked=(), actor=None):
        now, left = [0.0], list(comes)
        monkeypatch.setattr(doctor.time, "monotonic", lambda: now[0])

        def receive(timeout):
            now[0] += timeout
            return left.pop(0) if left else None

        return len(list(played(receive, actor or Actor(), 3, patience, asked)))

    return look


def test_all_that_are_wanted_are_waited_for(look):
    assert look([None, EPISODE, SimpleNamespace(version=np.array([0])), EPISODE, EPISODE, EPISODE]) == 3


def test_when_time_is_up_those_that_are_there_are_looked_at(look, caplog):
    assert look([EPISODE, None, EPISODE], patience=10) == 2
    assert "10 s are over (--patience)" in caplog.text


def test_without_an_episode_there_is_nothing_to_look_at(look, monkeypatch):
    monkeypatch.setattr(doctor, "tail", lambda log: "it loads")
    with pytest.raises(ValueError, match=r"no episode within 10 s; actor.log ends:\nit loads"):
        look([], patience=10)
    with pytest.raises(SystemExit) as ended:
        look([], asked=[signal.SIGINT])
    assert ended.value.code == 130


def test_asked_to_it_looks_at_those_that_are_there(look):
    assert look([EPISODE, EPISODE, None, EPISODE], asked=[signal.SIGINT]) == 2


def test_an_actor_that_fails_is_told(look):
    with pytest.raises(ValueError, match="the actor failed"):
        look([EPISODE], actor=Actor(failed=True))


def test_the_first_ctrl_c_is_noted_and_the_second_is_what_it_was():
    others = []
    before = signal.signal(signal.SIGINT, lambda number, _: others.append(number))
    try:
        with first_is_noted() as noted:
            os.kill(os.getpid(), signal.SIGINT)
            assert (noted, others) == ([signal.SIGINT], [])
            os.kill(os.getpid(), signal.SIGINT)
            assert (noted, others) == ([signal.SIGINT], [signal.SIGINT])
    finally:
        signal.signal(signal.SIGINT, before)


def test_its_help_has_its_own_options(capsys, monkeypatch):
    """LeRobot's are screens of text."""
    monkeypatch.setattr(sys, "argv", ["doctor", "--help"])
    with pytest.raises(SystemExit, match="0"):
        doctor.main()
    said = capsys.readouterr().out
    assert "--episodes" in said
    assert "--patience" in said
    assert len(said.splitlines()) < 40
