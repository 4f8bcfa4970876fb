"""LeRobot's own training on what we export: images reach the model as in its own, or it stops."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from forked import Command
from lerobot.configs import PreTrainedConfig
from lerobot.policies import make_pre_post_processors
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from tiny import build_tokenizer, tiny_policy_config, write_dataset

from bridge.weights.command import main
from bridge.weights.export import export_pretrained
from bridge.weights.folder import load_params

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A policy as LeRobot saves it."""
    folder = tmp_path_factory.mktemp("base")
    config = tiny_policy_config(tokenizer_name=str(build_tokenizer(folder / "tokens")))
    torch.manual_seed(0)
    XVLAPolicy(config).save_pretrained(folder / "policy")
    for processor in make_pre_post_processors(config):
        processor.save_pretrained(folder / "policy")
    return folder / "policy"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> list[str]:
    section = write_dataset(tmp_path_factory.mktemp("dataset") / "demos")
    return [f"--dataset.{name}={value}" for name, value in section.items()]


def lerobot_train(policy: Path, dataset: list[str], output_dir: Path) -> tuple[int, str]:
    """Train for two steps; return the exit status and the log."""
    log = output_dir.with_suffix(".log")
    arguments = [
        f"--policy.path={policy}",
        *dataset,
        f"--output_dir={output_dir}",
        "--steps=2",
        "--log_freq=1",
    ]
    arguments += [
        "--batch_size=4",
        "--num_workers=0",
        "--seed=1",
        "--env_eval_freq=0",
        "--wandb.enable=false",
    ]
    with Command("lerobot.scripts.lerobot_train", arguments, log, HF_HUB_OFFLINE="1") as process:
        return process.wait(200), log.read_text()


def losses(log: str) -> list[str]:
    return re.findall(r" loss:(\S+)", log)


def exported(base: Path, folder: Path, *, for_libero: bool) -> Path:
    """Write our export of the same weights."""
    from lerobot.configs.default import DatasetConfig

    from bridge.settings.sft_config import SFTConfig

    cfg = SFTConfig(dataset=DatasetConfig("test/demos"), policy=PreTrainedConfig.from_pretrained(base))
    export_pretrained(load_params(base)[1], cfg, folder, for_libero=for_libero)
    return folder


def test_lerobot_trains_on_our_export_as_on_its_own_policy(tmp_path, base, dataset):
    status, own = lerobot_train(base, dataset, tmp_path / "own")
    assert status == 0, own[-3000:]
    assert len(losses(own)) == 2

    for_eval = exported(base, tmp_path / "eval", for_libero=True)
    status, log = lerobot_train(for_eval, dataset, tmp_path / "refused")
    assert status != 0  # and does not train on images that nobody has normalised
    assert "normalizer_processor" in log
    assert losses(log) == []
    assert "pirl-convert --for=train" in (for_eval / "FOR_EVAL.md").read_text()

    assert main(["--for=train", str(for_eval), str(tmp_path / "train")]) == 0
    status, log = lerobot_train(tmp_path / "train", dataset, tmp_path / "ours")
    assert status == 0, log[-3000:]
    assert losses(log) == losses(own)
