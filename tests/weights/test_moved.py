"""A folder that has been moved: LeRobot's own functions load it once it is mended, ours before that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.configs.default import DatasetConfig
from lerobot.policies import make_pre_post_processors
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from tiny import INSTRUCTION, build_tokenizer, tiny_policy_config

from bridge.plugin.tokenizer import settle_tokenizer
from bridge.settings.sft_config import SFTConfig
from bridge.weights.beside import tokenizer_name
from bridge.weights.command import main
from bridge.weights.convert import convert
from bridge.weights.export import export_pretrained, policy_config
from pirl_jax.run_folder.manifest import damage
from pirl_jax.run_folder.retention import Retention
from pirl_jax.training.checkpoint import CheckpointWriter
from pirl_jax.xvla.init import init_params

LEROBOT_ONLY = """
import sys

import torch

for name in ("pirl_jax", "bridge", "jax"):
    sys.modules[name] = None
from lerobot.configs import PreTrainedConfig
from lerobot.policies import make_pre_post_processors

folder = sys.argv[1]
config = PreTrainedConfig.from_pretrained(folder)
loaded, _ = make_pre_post_processors(config, pretrained_path=folder)
made, _ = make_pre_post_processors(config)
for processor in (loaded, made):
    observation = {"observation.state": torch.zeros(5), "task": "pick up the pink cube"}
    print(processor(observation)["observation.language.tokens"].tolist())
"""


@pytest.fixture
def run(tmp_path):
    """A run of two checkpoints, whose tokenizer and first checkpoint have gone since."""
    policy = tiny_policy_config(tokenizer_name=str(build_tokenizer(tmp_path / "tokens")))
    cfg = SFTConfig(dataset=DatasetConfig("test/demos"), policy=policy)
    params = init_params(policy_config(policy), jax.random.key(0))
    with CheckpointWriter(tmp_path / "run", 10, Retention(keep_last=0, export="every")) as writer:
        for step in (1, 2):
            state = {"transformer": params["transformer"]}
            writer.save(step, state, lambda folder, _: export_pretrained(params, cfg, folder))
            writer.wait()
            shutil.rmtree(tmp_path / "tokens", ignore_errors=True)
    return tmp_path / "run"


def tokens_by_lerobot_alone(folder: Path, cwd: Path) -> list[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LEROBOT_ONLY, str(folder)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_lerobot_loads_a_moved_run_once_it_is_mended(tmp_path, run, capsys):
    moved = run.rename(tmp_path / "elsewhere")
    last = moved / "checkpoints" / "last" / "pretrained_model"
    assert main(["--moved", str(moved)]) == 0
    assert capsys.readouterr().out.count("names its own tokenizer") == 2
    assert tokenizer_name(last) == str(last.resolve() / "tokenizer")
    # Its manifest is true to it still: the run can be resumed.
    assert [damage(moved / "checkpoints" / name) for name in ("000001", "000002")] == [None, None]
    loaded, made = tokens_by_lerobot_alone(last, tmp_path)
    assert loaded == made


def test_a_damaged_file_is_not_passed_for_a_whole_one(tmp_path, run):
    config = run / "checkpoints" / "000002" / "pretrained_model" / "config.json"
    config.write_text(config.read_text().replace("16", "17"))
    assert main(["--moved", str(run / "checkpoints" / "last")]) == 1
    assert damage(run / "checkpoints" / "000002") is not None


def test_our_own_commands_find_the_tokenizer_of_a_moved_folder(tmp_path, run):
    last = run.rename(tmp_path / "elsewhere") / "checkpoints" / "last" / "pretrained_model"
    policy = PreTrainedConfig.from_pretrained(last)
    policy.pretrained_path = last
    env = SimpleNamespace(tokenizer_name=policy.tokenizer_name)
    settle_tokenizer(policy, env)
    assert policy.tokenizer_name == env.tokenizer_name == str(last.resolve() / "tokenizer")

    stale = SimpleNamespace(tokenizer_name=str(run / "checkpoints" / "000001" / "tokenizer"))
    settle_tokenizer(policy, stale)
    assert stale.tokenizer_name == policy.tokenizer_name
    named = SimpleNamespace(tokenizer_name="facebook/bart-large")
    settle_tokenizer(policy, named)
    assert named.tokenizer_name == "facebook/bart-large"


def test_what_cannot_be_found_is_said_in_one_line(tmp_path, run, capsys):
    export = run / "checkpoints" / "000002" / "pretrained_model"
    shutil.copytree(export, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer"))
    shutil.rmtree(run)
    assert main(["--moved", str(tmp_path / "bare")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"Put the tokenizer's files into {tmp_path / 'bare' / 'tokenizer'}" in error
    build_tokenizer(tmp_path / "bare" / "tokenizer")
    policy = PreTrainedConfig.from_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"tokenizer .* is not there\. Put it back, or set"):
        settle_tokenizer(policy)
    assert main(["--moved", str(tmp_path / "bare")]) == 0
    preprocessor, _ = make_pre_post_processors(policy, pretrained_path=str(tmp_path / "bare"))
    observation = {"observation.state": torch.zeros(5), "task": INSTRUCTION}
    assert preprocessor(observation)["observation.language.tokens"].shape == (1, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokens", "deep/er/tokens"])
def test_a_tokenizer_that_lies_outside_is_taken_along(tmp_path, monkeypatch, name):
    """As LeRobot saves a policy: its tokenizer is named, perhaps relative to where it was trained."""
    monkeypatch.chdir(tmp_path)
    config = tiny_policy_config(tokenizer_name=str(build_tokenizer(name)))
    torch.manual_seed(0)
    XVLAPolicy(config).save_pretrained("policy")
    for processor in make_pre_post_processors(config):
        processor.save_pretrained("policy")
    convert("policy", tmp_path / "out", "lerobot")
    shutil.rmtree(tmp_path / name)
    monkeypatch.chdir("/")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tokenizer_name"].startswith("/")
    loaded, made = tokens_by_lerobot_alone(tmp_path / "out", tmp_path)
    assert loaded == made
