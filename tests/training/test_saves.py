"""When a run is saved."""

import pytest

from pirl_jax.training.saves import Cadence, Saves


class Writer:
    to_be_tried_again = False
    saved = None

    def __init__(self):
        self.calls = []

    def save(self, step, state, export, about):
        self.calls.append((step, about))
        self.saved = step


@pytest.fixture
def writer():
    return Writer()


def test_what_failed_is_tried_again_and_the_end_is_saved(writer):
    saves = Saves(writer, Cadence(4), None, {"base": "b"})
    for update in range(1, 8):
        writer.to_be_tried_again = update == 6
        saves.after(update, {}, update / 10)
    saves.last()
    saves.last()
    assert [step for step, _ in writer.calls] == [4, 6, 7]
    assert [about["score"] for _, about in writer.calls] == pytest.approx([0.25, 0.55, 0.7])
    assert all(about["base"] == "b" for _, about in writer.calls)


def test_a_run_that_is_not_to_be_saved_is_not(writer):
    writer.to_be_tried_again = True
    saves = Saves(writer, Cadence(1, 1, saves=False), None, {})
    saves.after(1, {})
    saves.last()
    assert writer.calls == []


def test_a_run_that_did_nothing_has_nothing_to_save(writer):
    Saves(writer, Cadence(1), None, {}).last()
    assert writer.calls == []
