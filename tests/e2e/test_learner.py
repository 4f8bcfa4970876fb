"""The learner as its users start it: a process of its own, or its ``main()``."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from events import series
from fake_actor import FakeActor
from forked import Command
from hub import TOKEN, standing_in
from lerobot.configs import parser
from lerobot.policies.xvla import XVLAPolicy
from safetensors.torch import load_file
from tiny import tiny_policy_config, write_dataset, write_run_config

from bridge.watch.run import Run
from bridge.wire.status_file import read_standing
from pirl_jax import doctor, learner
from pirl_jax.glossary import entry_of
from pirl_jax.run_folder import manifest
from pirl_jax.trees import store

pytestmark = pytest.mark.e2e

EPISODES = 4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_config(folder: Path, port: int, **overrides) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = write_run_config(folder, port, steps=4, save_freq=1, **overrides)
    config = json.loads(path.read_text())
    if not (folder / "base").exists():
        torch.manual_seed(0)
        XVLAPolicy(tiny_policy_config(tokenizer_name=str(folder / "tokenizer"))).save_pretrained(
            folder / "base"
        )
    config["policy"] = {"path": str(folder / "base")}
    path.write_text(json.dumps(config))
    return path


def start(log: Path, *arguments: str) -> Command:
    return Command("pirl_jax.learner", list(arguments), log)


def feed(actor: FakeActor, updates: int) -> None:
    """Play what so many updates learn from."""
    actor.episodes(updates * EPISODES)


def wait_for(condition, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def final_state(folder: Path) -> dict:
    last = folder / "output" / "checkpoints" / "last"
    assert last.readlink() == Path("000004")
    return store.load(last / "training_state" / "orbax")


def flatten(tree: dict, prefix: str = "") -> dict[str, np.ndarray]:
    leaves = {}
    for name, value in tree.items():
        leaves |= (
            flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        )
    return leaves


FLOW_NOISE = {"mode": "flow_noise", "level": 0.1, "final_level": 0.05, "decay_updates": 4}


def test_a_killed_learner_resumes_to_the_result_it_would_have_had(tmp_path):
    """With a critic on the head that warms up, demonstrations, a noise head and a falling noise level."""
    results = {}
    dataset = write_dataset(tmp_path / "dataset")
    algorithm = {
        "critic": {"hidden_dims": [16], "input": "expert", "warmup_updates": 1},
        "demonstrations": {"coef": 0.1, "decay_updates": 3, "batch_size": 4, "max_samples": 16},
        "noise": FLOW_NOISE,
        "rollout": {"max_staleness": 0},  # else the actor may be a version ahead or behind
        "objective": {"entropy_coef": 0.005},
    }
    for name in ("whole", "killed"):
        folder, port = tmp_path / name, free_port()
        config = write_config(folder, port, algorithm=algorithm, dataset=dataset)
        process = start(folder / "log", f"--config_path={config}")
        actor = FakeActor(config)
        try:
            if name == "whole":
                feed(actor, 4)
            else:
                feed(actor, 2)
                last = folder / "output" / "checkpoints" / "last"
                wait_for(lambda link=last: link.is_symlink() and link.readlink() == Path("000002"))
                actor.episodes(1)  # a part of the next update dies with the learner
                process.kill()
                process.wait()
                # As in a checkpoint that is not the last any more: only what had changed.
                manifest.remove(last.resolve(), "pretrained_model/model.safetensors")
                resume = f"--config_path={last / 'pretrained_model' / 'train_config.json'}"
                process = start(folder / "log", resume, "--resume=true")
                feed(actor, 2)
            assert process.wait(timeout=60) == 0, (folder / "log").read_text()[-2000:]
            assert actor.wait_for_version(5).noise.level == pytest.approx(0.05)
        finally:
            process.kill()
            actor.close()
        results[name] = flatten(final_state(folder))
    assert results["whole"].keys() == results["killed"].keys()
    for path, expected in results["whole"].items():
        np.testing.assert_array_equal(results["killed"][path], expected, err_msg=path)
    models = [
        tmp_path / name / "output/checkpoints/last/pretrained_model/model.safetensors" for name in results
    ]
    assert models[0].read_bytes() == models[1].read_bytes()
    assert np.any(results["whole"]["params.noise_head.bound.weight"])
    rows = [json.loads(line) for line in (tmp_path / "killed/output/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    shown = series(tmp_path / "killed/output/tensorboard")
    assert shown["train/lr"] == [(row["step"], pytest.approx(row["train/lr"])) for row in rows]
    assert [row["train/policy_steps"] > 0 for row in rows] == [False, True, True, True]
    np.testing.assert_allclose(
        [row["train/demonstrations_coef"] for row in rows], [0.1, 0.2 / 3, 0.1 / 3, 0], atol=1e-6
    )
    assert all(row["train/demonstrations_loss"] > 0 for row in rows[1:])
    assert [row["train/noise_level"] for row in rows] == pytest.approx([0.1, 0.0875, 0.075, 0.0625])


def test_a_signal_between_two_checkpoints_loses_nothing(tmp_path):
    port = free_port()
    config = write_config(tmp_path, port)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"save_freq": 100}))
    process = start(tmp_path / "log", f"--config_path={config}")
    actor = FakeActor(config)
    try:
        feed(actor, 1)
        actor.wait_for_version(2)
        second = start(tmp_path / "log3", f"--config_path={config}", f"--seed={8}")
        assert second.wait(timeout=60) == 1
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM, (tmp_path / "log").read_text()[-2000:]
    finally:
        process.kill()
        actor.close()
    last = tmp_path / "output" / "checkpoints" / "last"
    assert "error: another run writes to" in (tmp_path / "log3").read_text().splitlines()[-1]
    log = (tmp_path / "log").read_text()
    assert (
        "SIGTERM: those before the update that runs are saved, and it is given up; once more ends at once"
        in log
    )
    command = (
        f"python -m pirl_jax.learner --config_path={last}/pretrained_model/train_config.json --resume=true"
    )
    assert f"asked to stop (SIGTERM) after 1 of 4; 1 are saved. To go on: {command}" in log.splitlines()[-1]
    assert last.readlink() == Path("000001")
    assert (last / "pretrained_model" / "model.safetensors").exists()
    exported = json.loads((last / "pretrained_model" / "config.json").read_text())
    assert exported["resize_imgs_with_padding"] == [64, 64]  # the size of the environment's images
    saved = store.load(last / "training_state" / "orbax")
    assert int(saved["updates"]) == 1
    goes_on_as_the_command_line_says(tmp_path, last, config, saved)


def goes_on_as_the_command_line_says(folder: Path, last: Path, config: Path, saved: dict) -> None:
    """The learning rate and the seed's key lie in the restored state too."""
    resume = f"--config_path={last / 'pretrained_model' / 'train_config.json'}"
    changes = ("--algorithm.optimizer.lr=3e-4", "--algorithm.critic.lr=2e-4", "--seed=8", "--steps=2")
    process = start(folder / "log2", resume, "--resume=true", *changes)
    actor = FakeActor(config)
    try:
        feed(actor, 1)
        assert process.wait(timeout=60) == 0, (folder / "log2").read_text()[-2000:]
    finally:
        process.kill()
        actor.close()
    assert json.loads((folder / "output/metrics.jsonl").read_text().splitlines()[-1])["train/lr"] == (
        pytest.approx(3e-4)
    )
    state = store.load(last / "training_state" / "orbax")
    assert np.any(state["key"] != saved["key"])
    told = [line for line in (folder / "log2").read_text().splitlines() if " from here on; " in line]
    for name, now in (
        ("algorithm.optimizer.lr", 0.0003),
        ("algorithm.critic.lr", 0.0002),
        ("seed", 8),
        ("steps", 2),
    ):
        assert any(f"{name} is {now} from here on; the saved run had " in line for line in told), name
    assert len(told) == 4, told


def train(folder: Path, updates: int, policy: dict, algorithm: dict, base_dtype=torch.float32) -> tuple:
    """Run a learner on fixed rollouts; return the policy's tensors before and after, metrics, state, log."""
    port = free_port()
    config = write_config(folder, port, algorithm=algorithm)
    base = folder / "base"
    network = XVLAPolicy.from_pretrained(base).to(base_dtype)
    network.config.dtype = str(base_dtype).removeprefix("torch.")
    network.save_pretrained(base)
    before = load_file(base / "model.safetensors")
    values = json.loads(config.read_text())
    values |= {"policy": values["policy"] | policy, "steps": updates, "save_freq": 100}
    config.write_text(json.dumps(values))
    process = start(folder / "log", f"--config_path={config}")
    actor = FakeActor(config)
    try:
        feed(actor, updates)
        assert process.wait(timeout=60) == 0, (folder / "log").read_text()[-2000:]
    finally:
        process.kill()
        actor.close()
    last = folder / "output" / "checkpoints" / "last"
    rows = [json.loads(line) for line in (folder / "output/metrics.jsonl").read_text().splitlines()]
    after = load_file(last / "pretrained_model" / "model.safetensors")
    return (
        before,
        after,
        rows,
        store.load(last / "training_state" / "orbax"),
        (folder / "log").read_text(),
    )


@pytest.mark.slow  # a learner that is not forked, as it looks for the hub when it is imported
def test_a_run_that_is_over_is_on_the_hub_if_it_was_to_be(tmp_path):
    config = write_config(tmp_path, free_port())
    with standing_in() as hub, (tmp_path / "log").open("w") as log:
        place = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-m", "pirl_jax.learner", f"--config_path={config}", "--steps=1"]
        process = subprocess.Popen(
            [*command, "--policy.repo_id=me/robot"],
            env=os.environ | place | {"HF_TOKEN": TOKEN},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        actor = FakeActor(config)
        try:
            feed(actor, 1)
            assert process.wait(timeout=600) == 0, (tmp_path / "log").read_text()[-2000:]
        finally:
            process.kill()
            actor.close()
    said, last = (tmp_path / "log").read_text(), tmp_path / "output/checkpoints/last/pretrained_model"
    assert f"Model pushed to {hub.address}/me/robot" in said
    assert "HTTP Request" not in said
    assert hub.files["me/robot"]["model.safetensors"] == (last / "model.safetensors").read_bytes()
    assert json.loads((last / "train_config.json").read_text())["policy"]["repo_id"] == "me/robot"
    exported = json.loads((last / "config.json").read_text())
    assert (exported["push_to_hub"], exported["repo_id"]) == (False, None)


def test_a_base_in_bfloat16_is_trained_in_float32(tmp_path):
    """At a fine-tuning learning rate, of which bfloat16 masters would lose nineteen steps in twenty."""
    algorithm = {"optimizer": {"lr": 5e-6, "num_epochs": 1, "minibatch_size": 8, "target_kl": None}}
    before, after, rows, state, log = train(tmp_path, 3, {}, algorithm, torch.bfloat16)
    heads = [key for key in after if key.startswith("model.transformer.")]
    assert {before[key].dtype for key in heads} == {torch.bfloat16}
    assert {after[key].dtype for key in heads} == {torch.float32}
    moved = torch.cat([(after[key] != before[key].float()).flatten() for key in heads])
    assert moved.float().mean() > 0.5
    for name, leaf in flatten(state).items():
        assert leaf.dtype not in (np.float16, ml_dtypes.bfloat16), name
    assert all(row["train/moved/head"] > 0.5 for row in rows)
    assert all(0 < row["train/update_ratio/head"] < 1e-3 for row in rows)
    assert "trained: head: " in log
    assert_the_page_knows(tmp_path / "output", 3)


def assert_the_page_knows(folder: Path, updates: int) -> None:
    """The run page shows what this learner has written, and has words for all of it."""
    news = Run(folder).news()
    assert (news["now"]["state"], news["now"]["rows"]) == ("finished", updates)
    assert [name for name in news["mean"] if entry_of(name) is None] == []
    assert news["about"]["config"]["settings"]["algorithm.optimizer.lr"] == "5e-06"
    assert [one["step"] for one in news["about"]["listing"]["checkpoints"]] == [updates]
    standing = read_standing(folder / "status.json")
    assert standing is not None
    assert standing.status.updates == updates


@pytest.mark.parametrize(
    ("policy", "algorithm", "trained"),
    [
        ({"train_policy_transformer": False}, {}, {"soft_prompts"}),
        pytest.param({"train_soft_prompts": False}, {}, {"head"}, marks=pytest.mark.slow),
        pytest.param({}, {"trainable": "soft_prompts"}, {"soft_prompts"}, marks=pytest.mark.slow),
    ],
    ids=["transformer frozen", "prompts frozen", "prompts selected"],
)
def test_what_is_not_selected_or_is_frozen_keeps_every_bit(tmp_path, policy, algorithm, trained):
    optimizer = {"optimizer": {"lr": 1e-3, "num_epochs": 1, "minibatch_size": 8, "weight_decay": 0.1}}
    before, after, rows, _, log = train(tmp_path, 1, policy, algorithm | optimizer)
    assert before.keys() == after.keys()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    groups = {"soft_prompts" if "soft_prompt" in key else "head" for key in changed}
    assert groups == trained
    assert all(key.startswith("model.transformer.") for key in changed)
    assert {name.split("/")[-1] for name in rows[0] if name.startswith("train/moved/")} == trained
    (line,) = [line for line in log.splitlines() if "trained: " in line]
    assert line.split("trained: ")[1].startswith(f"{next(iter(trained))}: ")
    assert "Kept as they are: " in line


def test_a_run_in_which_nothing_is_trained_is_refused(tmp_path, monkeypatch):
    config = write_config(tmp_path, free_port(), algorithm={"trainable": "soft_prompts"})
    values = json.loads(config.read_text())
    values["policy"] |= {"train_soft_prompts": False}
    config.write_text(json.dumps(values))
    message = run_main(monkeypatch, f"--config_path={config}")
    assert "nothing is trained" in message
    assert "algorithm.trainable" in message


def run_main(monkeypatch, *arguments: str, main: Callable[[], None] = learner.main) -> str:
    """Run a ``main()`` in this process; return the one line it ends with."""
    monkeypatch.setattr(sys, "argv", ["learner", *arguments])
    # LeRobot's parser keeps policy.path in a global: a process parses one command line.
    monkeypatch.setattr(parser, "_config_path_args", {})
    monkeypatch.setattr(parser, "_config_yaml_overrides", {})
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code not in (None, 0)
    return str(caught.value.code)


def test_an_existing_output_dir_is_refused_and_left_alone(tmp_path, monkeypatch):
    config = write_config(tmp_path, free_port())
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "precious").write_text("data")
    message = run_main(monkeypatch, f"--config_path={config}")
    assert "already exists" in message
    assert (tmp_path / "output" / "precious").read_text() == "data"


def test_the_reason_why_a_setting_is_refused_is_given(tmp_path, monkeypatch):
    config = write_config(tmp_path, free_port(), env={"actor_id": -1})
    assert "env.actor_id must be ≥ 0; got -1" in run_main(monkeypatch, f"--config_path={config}")


@pytest.mark.parametrize("command", [learner.main, doctor.main])
def test_a_precision_that_only_a_gpu_has_is_refused(command, tmp_path, monkeypatch):
    config = write_config(tmp_path, free_port(), algorithm={"head_precision": "bf16_x3"})
    message = run_main(monkeypatch, f"--config_path={config}", main=command)
    assert "algorithm.head_precision=bf16_x3 is for a GPU; JAX runs on 'cpu' here" in message
    assert "\n" not in message


def test_an_unknown_key_is_named(tmp_path, monkeypatch):
    config = write_config(tmp_path, free_port(), algorithm={"objective": {"clip_ration": 0.1}})
    assert "clip_ration" in run_main(monkeypatch, f"--config_path={config}")


def test_a_port_in_use_is_named_and_no_output_is_left(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = write_config(tmp_path, port)
        message = run_main(monkeypatch, f"--config_path={config}")
    assert str(port) in message
    assert "learner_port" in message
    assert not (tmp_path / "output").exists()


def test_a_base_of_another_domain_is_refused(tmp_path, monkeypatch):
    """The environment's default is 0: the wrong soft prompt would be tuned, and another one evaluated."""
    config = write_config(tmp_path, free_port())
    step = {"registry_name": "xvla_add_domain_id", "config": {"domain_id": 1}}
    preprocessor = {"name": "policy_preprocessor", "steps": [step]}
    (tmp_path / "base" / "policy_preprocessor.json").write_text(json.dumps(preprocessor))
    message = run_main(monkeypatch, f"--config_path={config}")
    assert "checkpoint: 1; env: 0; dataset: none" in message
    assert not (tmp_path / "output").exists()


def test_a_policy_that_is_no_flow_policy_is_refused(tmp_path, monkeypatch):
    config = write_config(tmp_path, free_port())
    values = json.loads(config.read_text()) | {"policy": {"type": "act", "push_to_hub": False}}
    config.write_text(json.dumps(values))
    message = run_main(monkeypatch, f"--config_path={config}")
    assert "xvla" in message
    assert "act" in message


def test_without_a_base_checkpoint_it_says_how_to_give_one(tmp_path, monkeypatch):
    config = write_run_config(tmp_path, free_port(), steps=4)
    assert "--policy.path" in run_main(monkeypatch, f"--config_path={config}")


def test_another_algorithm_is_sent_to_lerobots_learner(tmp_path, monkeypatch):
    config = write_config(tmp_path, free_port())
    values = json.loads(config.read_text()) | {"algorithm": {"type": "sac"}}
    config.write_text(json.dumps(values))
    assert "lerobot.rl.learner" in run_main(monkeypatch, f"--config_path={config}")
