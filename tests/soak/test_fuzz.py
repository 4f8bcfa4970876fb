"""That the fuzz has readers agree on a few messages, and notices one that does not check."""

import itertools
import random

import fuzz
import pytest
from fuzzed.episodes import Episodes
from fuzzed.words import RIGHT, Words

from bridge.wire import decode, protocol

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, of what is malformed


def test_messages_of_every_kind_are_read_alike(tmp_path):
    state = {"seed": 5, "next": 0, "counts": {}, "reasons": {}, "seconds": 0.0}
    with fuzz.kinds() as there:
        fuzz.advance(there, state, 400, tmp_path / "fuzz.json")
    assert not any(fuzz.wrong(state).values()), list(tmp_path.rglob("*.txt"))
    assert state["counts"].keys() == fuzz.SHARES.keys()
    for counts in state["counts"].values():
        assert counts[fuzz.ACCEPTED] > 0
        assert counts[fuzz.REFUSED] > 0


def outcomes(kind):
    for index in itertools.count():
        made = kind.make(random.Random(index))
        yield fuzz.outcome(kind, made.data, made.damaged)[0]


def test_a_reader_that_checks_less_is_noticed(monkeypatch):
    monkeypatch.setattr(decode.math, "isclose", lambda *numbers, **tolerances: True)
    assert "accepted wrongly" in itertools.islice(outcomes(Episodes()), 400)


def test_a_reader_that_checks_more_is_noticed(monkeypatch):
    monkeypatch.setattr(protocol, "_MAX_TEXT", 0)
    assert "refused wrongly" in itertools.islice(outcomes(Words()), 20)


def test_a_reader_that_fails_is_noticed(monkeypatch):
    monkeypatch.setattr(protocol, "MAX_JSON_BYTES", None)
    message = bytes([0]) + protocol.encode(RIGHT[0])
    assert fuzz.outcome(Words(), message, False)[0] == "raised"
