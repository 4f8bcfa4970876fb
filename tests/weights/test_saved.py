"""A checkpoint that holds only what had changed becomes a policy again: that, and the run's base."""

import shutil

import jax
import numpy as np
import pytest
import torch
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from tiny import tiny_policy_config

from bridge.weights.command import main
from bridge.weights.folder import WeightsError, load_params
from bridge.weights.saved import about, base_of, saved_params
from pirl_jax.run_folder import manifest
from pirl_jax.run_folder.layout import MODEL
from pirl_jax.run_folder.retention import Retention
from pirl_jax.training.checkpoint import CheckpointWriter


@pytest.fixture
def lerobot_folder(tmp_path):
    torch.manual_seed(0)
    XVLAPolicy(tiny_policy_config()).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def run(tmp_path, lerobot_folder):
    """A run of three checkpoints that trains the head: its folder, and the parameters of each."""
    base = load_params(lerobot_folder)[1]
    trained = {}
    frozen = {name: tree for name, tree in base.items() if name != "transformer"}

    def export(folder, state):
        for file in lerobot_folder.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
        (folder / MODEL).write_bytes(b"stands for the weights")

    with CheckpointWriter(tmp_path / "run", 10, Retention(keep_last=0)) as writer:
        for step in (1, 2, 3):
            head = jax.tree.map(lambda x, step=step: x + np.float32(step), base["transformer"])
            trained[step] = {**frozen, "transformer": head}
            state = {"params": {"transformer": head, "noise_head": {"w": np.ones(2)}}, "updates": step}
            writer.save(step, state, export, about(frozen, lerobot_folder))
    for step in (1, 2, 3):  # what stood for weights is no policy: only the base has them
        manifest.remove(tmp_path / f"run/checkpoints/00000{step}", f"pretrained_model/{MODEL}")
    return tmp_path / "run", trained


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


def test_every_saved_step_can_be_written_as_a_policy_that_lerobot_loads(run, tmp_path, capsys):
    output_dir, trained = run
    for step in (1, 3):
        assert main([str(output_dir), str(tmp_path / f"out{step}"), f"--step={step}"]) == 0
        assert equal(load_params(tmp_path / f"out{step}")[1], trained[step])
    XVLAPolicy.from_pretrained(tmp_path / "out3")
    assert main([str(output_dir), str(tmp_path / "orbax"), "--step=2", "--to=orbax"]) == 0
    assert equal(load_params(tmp_path / "orbax")[1], trained[2])


def test_the_base_may_have_moved(run, tmp_path, lerobot_folder, capsys):
    output_dir, trained = run
    lerobot_folder.rename(tmp_path / "moved")
    assert main([str(output_dir), str(tmp_path / "out"), "--step=2"]) == 1
    assert f"none of {output_dir}/checkpoints/000002/pretrained_model" in capsys.readouterr().err
    moved = f"--base={tmp_path / 'moved'}"
    assert main([str(output_dir), str(tmp_path / "out"), "--step=2", moved]) == 0
    assert equal(load_params(tmp_path / "out")[1], trained[2])


def test_another_complete_checkpoint_of_the_run_does_as_a_base(run, tmp_path, lerobot_folder):
    output_dir, trained = run
    shutil.copy(lerobot_folder / MODEL, output_dir / "checkpoints/last/pretrained_model" / MODEL)
    shutil.rmtree(lerobot_folder)
    checkpoint = output_dir / "checkpoints/000001"
    assert base_of(checkpoint) == output_dir / "checkpoints/last/pretrained_model"
    assert equal(saved_params(checkpoint), trained[1])


def test_another_base_is_refused(run, tmp_path, lerobot_folder):
    output_dir, _ = run
    torch_policy = XVLAPolicy.from_pretrained(lerobot_folder)
    for parameter in torch_policy.model.vlm.parameters():
        parameter.data += 1
    torch_policy.save_pretrained(tmp_path / "other")
    with pytest.raises(WeightsError, match=r"is not what the run of .* began with"):
        saved_params(output_dir / "checkpoints/000001", tmp_path / "other")


def test_a_base_that_differs_in_a_bit_or_in_how_it_is_stored_is_refused(lerobot_folder):
    frozen = {"head": {"w": np.ones(3, np.float32)}}
    said = about(frozen, lerobot_folder)
    other = {"head": {"w": np.float32([1, 1, 1 + 2**-23])}}
    stored = {"head": {"w": np.ones(3, np.float16)}}
    assert len({about(tree, None)["frozen_tensors"] for tree in (frozen, other, stored)}) == 3
    assert said == {"frozen_tensors": about(frozen, None)["frozen_tensors"], "base": str(lerobot_folder)}
    assert about(frozen, "org/name")["base"] == "org/name"


def test_a_base_is_found_from_any_working_directory(run, tmp_path, monkeypatch, lerobot_folder):
    monkeypatch.chdir(lerobot_folder.parent)
    assert about({}, lerobot_folder.name)["base"] == str(lerobot_folder)


def test_who_wants_to_load_what_only_changes_are_kept_of_is_told_how(run):
    output_dir, _ = run
    with pytest.raises(WeightsError, match=rf"pirl-convert {output_dir} DST --step=000001"):
        load_params(output_dir / "checkpoints/000001")


def test_a_base_without_a_step_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["a", "b", "--base=c"])
    assert "--base belongs to --step" in capsys.readouterr().err
