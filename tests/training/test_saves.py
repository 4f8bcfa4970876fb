"""When a run is saved."""

import pytest

from pirl_jax.training.saves import Cadence, Saves


class Writer:
    to_be_tried_again = False
    saved = None

    def __init__(self):
        self.calls, self.added = [], []

    def save(self, step, state, export, about):
        self.calls.append((step, about))
        self.saved = step

    def add(self, step, about):
        self.added.append((step, about))


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


def test_a_checkpoint_that_failed_takes_no_score_along(writer):
    saves = Saves(writer, Cadence(2), None, {})
    saves.after(1, {}, 0.2)
    saves.after(2, {}, 0.4)
    writer.saved = None  # it could not be written
    saves.after(3, {}, 0.6)
    saves.last()
    assert [about["score"] for _, about in writer.calls] == pytest.approx([0.3, 0.4])


def test_a_run_that_is_not_to_be_saved_is_not(writer):
    writer.to_be_tried_again = True
    saves = Saves(writer, Cadence(1, 1, saves=False), None, {})
    saves.after(1, {})
    saves.last()
    assert writer.calls == []


def test_a_run_that_did_nothing_has_nothing_to_save(writer):
    Saves(writer, Cadence(1), None, {}).last()
    assert writer.calls == []


def test_what_is_evaluated_is_saved_too_where_nobody_says_how_often():
    cadence = Cadence(4, evaluated=6)
    assert [update for update in range(1, 13) if cadence.due(update, 0)] == [4, 6, 8, 12]
    assert [Cadence(4, evaluated=6).every, Cadence(4).every, Cadence(0, evaluated=6).every] == [2, 4, 6]


def test_a_checkpoint_says_what_the_evaluation_of_its_own_update_has_found(writer):
    saves = Saves(writer, Cadence(2), None, {})
    saves.after(1, {}, 0.5)
    saves.evaluated(1, 30.0)  # it is not saved
    saves.after(2, {}, 0.5)
    saves.evaluated(2, 40.0)  # its checkpoint is being written
    saves.after(3, {}, 0.5)
    saves.evaluated(3, 50.0)
    saves.last()
    assert writer.calls == [(2, {"score": 0.5}), (3, {"score": 0.5, "pc_success": 50.0})]
    assert writer.added == [(1, {"pc_success": 30.0}), (2, {"pc_success": 40.0}), (3, {"pc_success": 50.0})]
