"""``python -m pirl_jax.sft``: trains on a LeRobotDataset, resumes bit for bit, exports what LeRobot loads."""

import itertools
import json
import signal
import sys

import draccus
import jax
import numpy as np
import pytest
import torch
from lerobot.configs.default import DatasetConfig
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from tiny import build_tokenizer, tiny_policy_config, write_dataset

from bridge.datasets import dataset
from bridge.settings.sft_config import SFTConfig
from pirl_jax import sft
from pirl_jax.run_folder.layout import read_step
from pirl_jax.training.metrics import read
from pirl_jax.trees import store


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Write a dataset and the JSON that trains on it; return the JSON's path."""
    folder = tmp_path_factory.mktemp("sft")
    dataset = write_dataset(folder / "dataset")
    tokenizer = build_tokenizer(folder / "tokenizer")
    cfg = SFTConfig(
        dataset=DatasetConfig(**dataset),
        policy=tiny_policy_config(tokenizer_name=str(tokenizer), optimizer_lr=1e-3, scheduler_warmup_steps=0),
        batch_size=4,
        steps=6,
        save_freq=3,
        log_freq=1,
        num_workers=0,
        vlm_lr_scale=1.0,
    )
    path = folder / "sft.json"
    with path.open("w") as file, draccus.config_type("json"):
        draccus.dump(cfg, file, indent=2)
    return path


@pytest.fixture
def command(monkeypatch):
    """Run the command in this process, whose compiled step the runs then share."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sft", *map(str, arguments)])
        sft.main()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def states(output_dir):
    return store.load(output_dir / "checkpoints" / "last" / "training_state" / "orbax")


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_unbroken_one_does(config, command, tmp_path, capfd):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command(f"--config_path={config}", f"--output_dir={whole}")
    # The same schedule, ended early: what a killed run leaves is its last checkpoint.
    command(f"--config_path={config}", f"--output_dir={broken}")
    last = broken / "checkpoints" / "last"
    last.unlink()
    last.symlink_to("000003")
    command(f"--config_path={last / 'pretrained_model' / 'train_config.json'}", "--resume=true")
    assert read_step(last) == 6
    for left, right in zip(jax.tree.leaves(states(whole)), jax.tree.leaves(states(broken)), strict=True):
        np.testing.assert_array_equal(left, right)
    rows = [read(folder / "metrics.jsonl") for folder in (whole, broken)]
    assert [row["step"] for row in rows[1]] == list(range(1, 7))
    assert [row["train/loss"] for row in rows[0]] == [row["train/loss"] for row in rows[1]]
    # What the command line changes is obeyed and said, though the key lies in the restored state.
    assert "from here on" not in capfd.readouterr().err
    before, changes = states(broken)["key"], ("--steps=7", "--seed=5", "--policy.optimizer_lr=2e-3")
    command(f"--config_path={last / 'pretrained_model' / 'train_config.json'}", "--resume=true", *changes)
    assert np.any(states(broken)["key"] != before)
    told = capfd.readouterr().err
    for name, now in (("steps", 7), ("seed", 5), ("policy.optimizer_lr", 0.002)):
        assert f"{name} is {now} from here on; the saved run had " in told
    assert told.count("from here on") == 3, told


def test_the_checkpoint_is_a_policy_that_lerobot_loads_and_a_run_can_start_from(
    config, command, tmp_path, capfd
):
    command(f"--config_path={config}", f"--output_dir={tmp_path / 'first'}", "--steps=1")
    folder = tmp_path / "first" / "checkpoints" / "last" / "pretrained_model"
    policy = XVLAPolicy.from_pretrained(folder)
    stored = states(tmp_path / "first")["params"]["transformer"]["norm"]["weight"]
    np.testing.assert_array_equal(policy.model.transformer.norm.weight.detach(), stored)
    assert policy.config.resize_imgs_with_padding == (64, 64)  # what it was trained on
    policy.to(torch.bfloat16).save_pretrained(folder)  # as LeRobot's X-VLA page recommends
    processor = folder / "policy_preprocessor.json"
    steps = json.loads(processor.read_text())
    (domain,) = [step for step in steps["steps"] if step["registry_name"] == "xvla_add_domain_id"]
    assert domain["config"] == {"domain_id": 0}
    domain["config"]["domain_id"] = 1
    processor.write_text(json.dumps(steps))
    dataset = json.loads(config.read_text())["dataset"]
    command(
        f"--policy.path={folder}",
        f"--dataset.repo_id={dataset['repo_id']}",
        f"--dataset.root={dataset['root']}",
        f"--output_dir={tmp_path / 'second'}",
        "--steps=1",
        "--batch_size=4",
        "--policy.freeze_vision_encoder=true",
        "--policy.push_to_hub=false",
    )
    moved = XVLAPolicy.from_pretrained(tmp_path / "second" / "checkpoints" / "last" / "pretrained_model")
    before, after = policy.state_dict(), moved.state_dict()
    changed = {name for name in before if not torch.equal(before[name].float(), after[name])}
    assert changed
    assert not any("vision_tower" in name for name in changed)
    # The soft prompt of the domain that the base announces, which the export announces again.
    prompts = "model.transformer.soft_prompt_hub.weight"
    rows_changed = (before[prompts].float() != after[prompts]).any(1)
    assert rows_changed.tolist() == [False, True]
    written = tmp_path / "second" / "checkpoints" / "last" / "pretrained_model" / processor.name
    assert [
        step["config"]["domain_id"]
        for step in json.loads(written.read_text())["steps"]
        if step["registry_name"] == "xvla_add_domain_id"
    ] == [1]
    # Trained in float32 all the same, and said to be.
    state = states(tmp_path / "second")
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((state["params"], state["opt_state"]))}
    assert dtypes <= {np.dtype(np.float32), np.dtype(np.int32)}
    (row,) = read(tmp_path / "second" / "metrics.jsonl")
    assert row["train/moved/head"] > 0.5
    assert 0 < row["train/update_ratio/vlm"] < 1
    told = capfd.readouterr().err
    assert "trained: head: " in told
    assert f"metrics: {tmp_path / 'second'}/metrics.jsonl" in told
    assert "step 1 of 1 | loss " in told
    assert "step 1: " in told
    assert (tmp_path / "second" / "learning_curve.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--steps=0", "steps must be positive"),
        ("--dataset.streaming=true", r"dataset\.streaming"),
        ("--vlm_lr_scale=-1", "vlm_lr_scale"),
    ],
)
def test_a_bad_setting_ends_the_command_with_one_line(config, command, tmp_path, argument, message):
    with pytest.raises(SystemExit, match=message):
        command(f"--config_path={config}", f"--output_dir={tmp_path / 'run'}", argument)
    assert not (tmp_path / "run").exists()


def test_a_bad_setting_in_the_json_ends_the_command_with_one_line(config, command, tmp_path):
    """One that LeRobot's config refuses as it is built, which its parser lets through as a traceback."""
    values = json.loads(config.read_text())
    values["dataset"]["eval_split"] = 2.0
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(values))
    with pytest.raises(SystemExit, match=r"^error: .*eval_split must be in \[0\.0, 1\.0\), got 2\.0$"):
        command(f"--config_path={path}", f"--output_dir={tmp_path / 'run'}")


def test_a_run_that_fails_keeps_what_it_has_learned(config, command, tmp_path, monkeypatch):
    def broken(*arguments, **settings):
        yield from itertools.islice(batches(*arguments, **settings), 4)
        raise OSError("a frame cannot be read")

    batches = dataset.batches
    monkeypatch.setattr(dataset, "batches", broken)
    with pytest.raises(SystemExit, match="a frame cannot be read"):
        command(f"--config_path={config}", f"--output_dir={tmp_path / 'out'}", "--save_freq=100")
    assert read_step(tmp_path / "out" / "checkpoints" / "last") == 4


def test_an_existing_output_dir_is_left_alone(config, command, tmp_path):
    with pytest.raises(SystemExit, match="already exists"):
        command(f"--config_path={config}", f"--output_dir={tmp_path}")
