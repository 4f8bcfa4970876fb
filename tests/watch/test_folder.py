"""What a run's folder holds beside its metrics."""

import json
import os

import pytest
from watched_run import write_checkpoint, write_config

from bridge.watch.folder import listing, read_config


def test_a_folder_that_holds_nothing_has_nothing_to_show(tmp_path):
    found = listing(tmp_path)
    assert (found.videos, found.reports, found.checkpoints) == ((), (), ())
    assert read_config(tmp_path) is None


def test_videos_come_failures_first_then_the_newest_and_links_lead_nowhere(tmp_path):
    ages = {
        "videos/success_1.mp4": 10,
        "videos/failure_2.mp4": 30,
        "videos/success_3.webm": 20,
        ".hidden.mp4": 1,
    }
    for name, age in ages.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * age)
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "link.mp4").symlink_to("/etc/passwd")
    (tmp_path / "report.md").write_text("# of it")
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    (tmp_path / "train" / "checkpoints").mkdir(parents=True)
    (tmp_path / "train" / "checkpoints" / "README.md").write_text("of a checkpoint")
    found = listing(tmp_path)
    assert [video.path for video in found.videos] == [
        "videos/failure_2.mp4",
        "videos/success_1.mp4",
        "videos/success_3.webm",
    ]
    assert [video.failed for video in found.videos] == [True, False, False]
    assert found.paths == {*(video.path for video in found.videos), "report.md"}


def test_a_film_of_a_learner_says_how_its_episode_ended_whatever_its_task_is_called(tmp_path):
    for name in ("failsafe_0/episode_000001_success", "failsafe_0/episode_000000_fail"):
        path = tmp_path / "videos" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = {video.path[-16:-4]: video.failed for video in listing(tmp_path).videos}
    assert found == {"0001_success": False, "_000000_fail": True}


def test_a_checkpoint_says_what_it_scored_and_who_leads_to_it(tmp_path):
    write_checkpoint(tmp_path, 10, 0.25)
    write_checkpoint(tmp_path, 20, 0.5, 64.0)
    (tmp_path / "checkpoints/best").symlink_to("000010")
    (tmp_path / "checkpoints/000030").mkdir()  # is being written
    (tmp_path / "checkpoints/000020/pretrained_model/model.safetensors").touch()
    newest, older = listing(tmp_path).checkpoints
    assert (newest.step, newest.score, newest.evaluated, newest.names, newest.complete) == (
        20,
        0.5,
        0.64,
        ("last",),
        True,
    )
    assert (older.step, older.score, older.evaluated, older.names, older.complete) == (
        10,
        0.25,
        None,
        ("best",),
        False,
    )


@pytest.mark.parametrize("text", ["", "[1]", '{"steps"', "\0"])
def test_a_config_that_cannot_be_read_gives_way_to_the_checkpoints(tmp_path, text):
    (tmp_path / "train_config.json").write_text(text)
    assert read_config(tmp_path) is None
    write_checkpoint(tmp_path, 10, 0.25)
    (tmp_path / "checkpoints/last/pretrained_model/train_config.json").write_text(json.dumps({"steps": 7}))
    assert read_config(tmp_path) == ("checkpoints/last/pretrained_model/train_config.json", {"steps": 7})
    write_config(tmp_path)
    assert read_config(tmp_path)[0] == "train_config.json"
