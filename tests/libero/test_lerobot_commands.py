"""The commands of docs/libero.md that are LeRobot's own, as they stand there, on its policies and on ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from assets import libero_config
from checkpoints import ACTION_DIM, IMAGE_KEYS, STATE_DIM, export_for_libero, policy_for_libero
from forked import Command
from lerobot.policies import make_pre_post_processors
from lerobot.policies.xvla import XVLAPolicy
from tiny import write_dataset

from bridge.evaluate.settings import Checkpoint
from bridge.weights.command import main

pytestmark = pytest.mark.e2e


@pytest.fixture
def lerobot(tmp_path, libero_environment):
    """Run one of LeRobot's commands to its end."""
    names = "HOME", "XDG_CACHE_HOME", "HF_HUB_OFFLINE", "MUJOCO_GL"
    environment = libero_config() | {name: libero_environment[name] for name in names}

    def run(script: str, *arguments: str) -> None:
        log = tmp_path / f"{script}.log"
        with Command(f"lerobot.scripts.lerobot_{script}", list(arguments), log, **environment) as process:
            assert process.wait(300) == 0, log.read_text()[-3000:]

    return run


def evaluate(lerobot, policy: Path, output_dir: Path) -> None:
    """``lerobot-eval`` with LIBERO's own cameras, whatever the policy was trained on."""
    lerobot(
        "eval",
        *(f"--policy.path={policy}", "--env.type=libero", "--env.task=libero_object", "--env.task_ids=[0]"),
        *("--env.control_mode=absolute", "--env.episode_length=2", "--eval.n_episodes=1"),
        *("--eval.batch_size=1", f"--output_dir={output_dir}"),
    )
    assert json.loads((output_dir / "eval_info.json").read_text())["overall"]["n_episodes"] == 1


def test_a_warm_start_of_lerobots_is_evaluated_by_lerobot(tmp_path, lerobot, capsys):
    torch.manual_seed(0)
    config = policy_for_libero(tmp_path, resize_imgs_with_padding=None)
    XVLAPolicy(config).save_pretrained(tmp_path / "base")
    for processor in make_pre_post_processors(config):
        processor.save_pretrained(tmp_path / "base")
    dataset = write_dataset(
        tmp_path / "demos", state_dim=STATE_DIM, action_dim=ACTION_DIM, image_keys=IMAGE_KEYS
    )
    lerobot(
        "train",
        *(f"--policy.path={tmp_path / 'base'}", *(f"--dataset.{name}={x}" for name, x in dataset.items())),
        *(f"--output_dir={tmp_path / 'train'}", "--steps=1", "--batch_size=4", "--num_workers=0"),
    )
    warm_start = tmp_path / "train" / "checkpoints" / "last" / "pretrained_model"

    with pytest.raises(ValueError, match="xvla_image_to_float") as refused:
        Checkpoint.read(warm_start)
    advice = str(refused.value).split("pirl-convert ")[1].split()
    assert main([word.replace("NEW_FOLDER", str(tmp_path / "for_eval")) for word in advice]) == 0
    assert "lerobot, for eval" in capsys.readouterr().out
    evaluate(lerobot, tmp_path / "for_eval", tmp_path / "evaluation")
    # pirl-eval takes it as well, and shows it what it was trained on.
    assert Checkpoint.read(tmp_path / "for_eval").image_size == (64, 64)


def test_our_export_is_evaluated_by_lerobot(tmp_path, lerobot):
    exported = export_for_libero(tmp_path, resize_imgs_with_padding=None)
    evaluate(lerobot, exported, tmp_path / "evaluation")
    assert Checkpoint.read(exported).image_size == (64, 64)


def test_resizing_leaves_the_images_alone_that_the_policy_was_trained_on(tmp_path):
    policy = XVLAPolicy.from_pretrained(export_for_libero(tmp_path, resize_imgs_with_padding=None))
    assert policy.config.resize_imgs_with_padding == (64, 64)
    batch = dict.fromkeys(IMAGE_KEYS, torch.rand(1, 3, 64, 64))
    images, _ = policy._prepare_images(batch)
    assert torch.equal(images[:, 0], batch[IMAGE_KEYS[0]])
