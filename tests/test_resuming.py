"""A run that goes on is known by whatever says so."""

import json
import sys

import pytest

from pirl_jax import command
from pirl_jax.run_folder.resuming import RESUMES, plainly


@pytest.mark.parametrize(
    "said", [["--resume=true"], ["--resume=True"], ["--resume", "true"], ["--resume=yes"], ["--resume", "on"]]
)
def test_it_is_said_in_one_spelling(said):
    assert plainly(["--seed", "3", *said]) == ["--seed=3", RESUMES]


@pytest.mark.parametrize("said", ["--resume=false", "--resume=auto", "--resume=no"])
def test_what_does_not_resume_stays(said):
    assert plainly([said]) == [said]


@pytest.mark.parametrize("name", ["train_config.json", ""])
def test_a_config_may_say_it(tmp_path, name):
    (tmp_path / "train_config.json").write_text(json.dumps({"resume": True}))
    config = f"--config_path={tmp_path / name}"
    assert plainly([config]) == [config, RESUMES]
    assert plainly([config, "--resume=false"]) == [config, "--resume=false"]


@pytest.mark.parametrize("content", ["{}", "[]", "no json", None])
def test_what_cannot_be_read_says_nothing(tmp_path, content):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    assert plainly([f"--config_path={path}"]) == [f"--config_path={path}"]


@pytest.mark.parametrize("said", ["--resume=true", "--resume=True", "--resume=yes", None])
def test_a_damaged_checkpoint_is_found_however_it_is_said(tmp_path, monkeypatch, said):
    """``run_command`` looks at the checkpoint before LeRobot's parser reads its config."""
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps({"resume": said is None}))
    looked_at = []
    monkeypatch.setattr(command, "whole", lambda path, quick: looked_at.append(path) or path)
    monkeypatch.setattr(sys, "argv", ["learner", f"--config_path={path}", *([said] if said else [])])

    def nothing_to_parse():
        raise ValueError("seen")

    with pytest.raises(SystemExit, match="seen"):
        command.run_command(print, nothing_to_parse)
    assert looked_at == [path]
