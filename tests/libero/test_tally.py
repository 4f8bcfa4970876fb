"""A recording that was stopped goes on where it was, and nowhere else."""

import pytest

from bridge.libero.tally import Tally

ASKED = {"episodes": 3, "seed": 0}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "dataset"


def begun(root, *successes):
    progress = Tally.of(root, ASKED)
    root.mkdir()
    for success in successes:
        progress.note("task", success)
    return progress


def test_it_goes_on_after_what_is_there(root):
    begun(root, True, False, True).pause()
    progress = Tally.of(root, ASKED)
    assert (progress.saved, progress.attempts, progress.episodes) == ({"task": 2}, {"task": 3}, 2)
    assert root.exists()


def test_failures_alone_are_remembered_and_the_empty_dataset_goes(root):
    begun(root, False).pause()
    progress = Tally.of(root, ASKED)
    assert (progress.attempts, progress.episodes) == ({"task": 1}, 0)
    assert not root.exists()


def test_what_was_killed_is_said_to_be(root):
    begun(root, True)
    with pytest.raises(ValueError, match=r"cannot be read: its recording was killed\. Remove .*dataset"):
        Tally.of(root, ASKED)


def test_other_settings_do_not_go_on(root):
    begun(root, True).pause()
    with pytest.raises(ValueError, match=r"begun with another seed: 0, not 1\. Give the same to go on"):
        Tally.of(root, ASKED | {"seed": 1})


def test_what_is_whole_is_not_touched(root):
    progress = begun(root, True)
    progress.pause()
    progress.over()
    with pytest.raises(ValueError, match=r"dataset already exists\. Remove"):
        Tally.of(root, ASKED)
