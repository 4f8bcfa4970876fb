"""What of a run stays on disk."""

import os
import shutil

import pytest
from lerobot.common.train_utils import get_step_checkpoint_dir

from pirl_jax.run_folder.layout import (
    MODEL,
    PRETRAINED_MODEL,
    checkpoint_folder,
    checkpoint_of,
    mend,
    point,
    sweep,
    write_about,
)
from pirl_jax.run_folder.retention import Retention, best_of, prune


def checkpoint(output_dir, step, **about):
    folder = checkpoint_folder(output_dir, step, 100)
    (folder / PRETRAINED_MODEL).mkdir(parents=True)
    (folder / PRETRAINED_MODEL / MODEL).write_bytes(b"weights")
    (folder / "training_state").mkdir()
    write_about(folder, {"step": step, **about})
    return folder


def run(output_dir, retention, scores):
    """Save every tenth step, as the writer does."""
    for number, score in enumerate(scores, start=1):
        folder = checkpoint(output_dir, 10 * number, **({} if score is None else {"score": score}))
        point("last", folder)
        if best := best_of(folder.parent):
            point("best", best)
        prune(folder.parent, 10 * number, retention)
    folders = sorted(path for path in (output_dir / "checkpoints").iterdir() if not path.is_symlink())
    return {
        int(folder.name): "whole" if (folder / PRETRAINED_MODEL / MODEL).exists() else "changes"
        for folder in folders
    }


@pytest.mark.parametrize(
    ("retention", "scores", "left"),
    [
        (Retention(), [0.1, 0.5, 0.3, 0.2, 0.2], {20: "whole", 40: "changes", 50: "whole"}),
        (Retention(), [0.1, 0.2, 0.2], {20: "changes", 30: "whole"}),
        (Retention(), [None, None, None], {20: "changes", 30: "whole"}),
        (Retention(keep_last=1), [0.1, 0.2, 0.3], {30: "whole"}),
        (Retention(keep_last=1, keep_every=20), 5 * [None], {20: "changes", 40: "changes", 50: "whole"}),
        (Retention(keep_last=0), 3 * [None], {10: "changes", 20: "changes", 30: "whole"}),
        (Retention(keep_last=2, export="every"), 3 * [None], {20: "whole", 30: "whole"}),
    ],
)
def test_the_last_the_best_and_what_is_asked_for_stay(tmp_path, retention, scores, left):
    assert run(tmp_path, retention, scores) == left


def test_a_run_that_went_back_leaves_what_came_after_alone(tmp_path):
    run(tmp_path, Retention(keep_last=0), 4 * [None])
    folder = checkpoint(tmp_path, 15)
    point("last", folder)
    prune(folder.parent, 15, Retention(keep_last=1))
    names = [path.name for path in sorted(folder.parent.iterdir()) if not path.is_symlink()]
    assert names == ["000015", "000020", "000030", "000040"]


def test_nothing_but_checkpoints_is_removed(tmp_path):
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    (tmp_path / "checkpoints" / "7").write_text("a file")
    folder = checkpoint(tmp_path, 10)
    prune(folder.parent, 20, Retention(keep_last=1))
    assert (tmp_path / "checkpoints" / "mine").exists()
    assert (tmp_path / "checkpoints" / "7").exists()


def test_the_links_survive_a_copy_of_the_run(tmp_path):
    run(tmp_path / "a", Retention(), [0.5, 0.1])
    assert os.readlink(tmp_path / "a/checkpoints/best") == "000010"
    assert os.readlink(tmp_path / "a/checkpoints/last") == "000020"


def test_a_checkpoint_that_is_not_there_is_said_with_those_that_are(tmp_path):
    run(tmp_path, Retention(), [None, None])
    assert checkpoint_of(tmp_path, 10).name == "000010"
    with pytest.raises(ValueError, match="no checkpoint of step 15; there are: 10, 20"):
        checkpoint_of(tmp_path, 15)
    with pytest.raises(ValueError, match="there are: none"):
        checkpoint_of(tmp_path / "nowhere", 15)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"keep_last": -1}, "keep_last must be ≥ 0"), ({"export": "best"}, "must be last or every")],
)
def test_a_retention_that_cannot_be_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Retention(**wrong)


def test_the_best_is_chosen_anew_when_its_place_is_taken(tmp_path):
    run(tmp_path, Retention(keep_last=0), [0.1, 0.7, 0.9])
    shutil.rmtree(tmp_path / "checkpoints/000030")
    checkpoint(tmp_path, 30, score=0.2)
    assert best_of(tmp_path / "checkpoints").name == "000020"
    (tmp_path / "checkpoints/000020/training_state/training_step.json").write_text("{")
    assert best_of(tmp_path / "checkpoints").name == "000030"
    assert best_of(tmp_path / "nowhere") is None


def test_what_was_evaluated_goes_by_its_evaluation_and_comes_before_what_was_not(tmp_path):
    """Rates of exploring actors are no percentages: the two are never compared."""
    checkpoints = checkpoint(tmp_path, 10, score=1.0).parent
    assert best_of(checkpoints).name == "000010"
    checkpoint(tmp_path, 20, score=0.1, pc_success=0.4)
    assert best_of(checkpoints).name == "000020"
    checkpoint(tmp_path, 30, score=0.0, pc_success=0.4)  # of equal ones the latest
    checkpoint(tmp_path, 40, score=1.0, pc_success=0.3)
    checkpoint(tmp_path, 50, score=1.0)
    assert best_of(checkpoints).name == "000030"


def test_a_run_killed_before_it_had_a_link_to_its_first_checkpoint_has_one_when_it_is_looked_for(tmp_path):
    folder = checkpoint(tmp_path, 10)
    policy = folder.parent / "last" / PRETRAINED_MODEL
    mend(policy)
    assert policy.exists()
    assert os.readlink(folder.parent / "last") == "000010"
    mend(tmp_path / "nowhere/checkpoints/last")
    assert not (tmp_path / "nowhere").exists()


def test_a_sweep_leaves_what_no_run_has_made_alone(tmp_path):
    folder = checkpoint(tmp_path, 10).parent
    names = ("notes.old", "000010.old", "mine.displaced", "mine.tmp", "mine.removed")
    for name in names:
        (folder / name).mkdir()
    (folder / "last.old").symlink_to("000010")
    (folder / "000020.tmp").mkdir()
    (folder / "000030.removed").mkdir()
    (folder / "last.tmp").symlink_to("000010")
    sweep(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted((*names, "000010", "last.old"))


def test_a_link_in_the_place_of_a_checkpoint_is_not_followed(tmp_path):
    run(tmp_path / "run", Retention(keep_last=0), [None, None])
    moved = tmp_path / "elsewhere"
    (tmp_path / "run/checkpoints/000010").rename(moved)
    (tmp_path / "run/checkpoints/000010").symlink_to(moved)
    prune(tmp_path / "run/checkpoints", 20, Retention(keep_last=1))
    assert (moved / PRETRAINED_MODEL).exists()


def test_what_was_killed_between_two_renames_can_be_resumed_from(tmp_path):
    run(tmp_path, Retention(), [None, None])
    folder = tmp_path / "checkpoints"
    (folder / "000020").rename(folder / "000020.displaced")
    config = folder / "last/pretrained_model" / MODEL
    assert not config.exists()
    mend(config)
    assert config.exists()
    (folder / "000030.tmp").mkdir()
    mend(config)  # of a run that may be writing
    assert (folder / "000030.tmp").exists()


@pytest.mark.parametrize("step", [1, 10, 123_456, 1_234_567])
@pytest.mark.parametrize("total", [4, 999_999, 1_000_000, 12_345_678])
def test_a_checkpoints_folder_has_the_name_that_lerobot_gives_it(tmp_path, step, total):
    """A run whose total has more digits than before a resume has folders of two widths, there and here."""
    assert checkpoint_folder(tmp_path, step, total) == get_step_checkpoint_dir(tmp_path, total, step)
