"""A config that does not fit is refused in one line that names the setting, the value and what is allowed."""

import contextlib
import io
import json

import draccus
import pytest
from forked import Command
from lerobot.configs import PreTrainedConfig
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from tiny import tiny_policy_config, write_run_config

import bridge.plugin
from bridge.plugin import parsing, transport

bridge.plugin.register()

NO_CHOICE = "argument --env.type: invalid choice: 'nothing' (choose from 'aloha', "
CASES = [
    (("--nonsense=3",), {}, "unrecognized arguments: --nonsense=3"),
    (
        ("--algorithm.rollout.episodes_per_updates=3", "--seeds=3"),
        {},
        "unrecognized arguments: --algorithm.rollout.episodes_per_updates=3 --seeds=3 "
        "(did you mean --algorithm.rollout.episodes_per_update, --seed?)",
    ),
    (("--seed=abc",), {}, "seed: Couldn't parse 'abc' into an int"),
    (("--algorithm.optimizer.lr=abc",), {}, "algorithm.optimizer.lr: Couldn't parse 'abc' into a float"),
    (
        ("--algorithm.optimizer.microbatch_size=abc",),
        {},
        "algorithm.optimizer.microbatch_size: int: Couldn't parse 'abc' into an int; "
        "Literal: Cannot convert 'abc' (<class 'str'>) into one of: auto",
    ),
    (("--algorithm.noise.level=-1",), {}, "algorithm.noise.level must be above 0; got -1.0."),
    (
        ("--algorithm.critic=3",),
        {},
        "algorithm.critic: 3 stands where a section should: give its settings one by one.",
    ),
    (("--env.type=nothing",), {}, NO_CHOICE),
    ((), {"env": {"type": "nothing"}}, "env: its type is 'nothing'; there are aloha, "),
    ((), {"env": {"gym_id": "x"}}, "env: its type is missing; there are aloha, "),
    ((), {"policy": {"dtype": "bfloat16"}}, "policy: its type is missing; there are "),
    (
        (),
        {"algorithm": {"rollout": {"nonsense": 3}}},
        "algorithm.rollout: The fields `nonsense` are not valid for RolloutConfig",
    ),
]


@pytest.fixture(autouse=True)
def as_a_command(monkeypatch):
    monkeypatch.setattr(parsing, "_in_one_line", True)
    monkeypatch.setattr(transport, "is_actor", lambda: False)


def refused(config, *flags):
    said = io.StringIO()
    with (
        draccus.config_type("json"),
        contextlib.redirect_stderr(said),
        pytest.raises(parsing.RefusedError) as error,
    ):
        draccus.parse(TrainRLServerPipelineConfig, str(config), args=list(flags))
    assert said.getvalue() == ""
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("flags", "sections", "line"), CASES, ids=lambda value: None)
def test_a_setting_that_does_not_fit_is_named_with_what_does(tmp_path, flags, sections, line):
    config = write_run_config(tmp_path, 1, **{k: v for k, v in sections.items() if k == "algorithm"})
    values = json.loads(config.read_text())
    for name in sections.keys() - {"algorithm"}:
        values[name] = sections[name]
    config.write_text(json.dumps(values))
    assert refused(config, *flags).startswith(line)


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        (
            "--num_denoising_step=3",
            "unrecognized arguments: --policy.num_denoising_step=3 (did you mean "
            "--policy.num_denoising_steps?)",
        ),
        ("--n_action_steps=99", "policy: `n_action_steps` (99) must be <= `chunk_size` (8)."),
        ("--depth=abc", "policy.depth: Couldn't parse 'abc' into an int"),
    ],
)
def test_what_stands_beside_a_policys_path_is_named_in_full(tmp_path, flag, line):
    tiny_policy_config()._save_pretrained(tmp_path)
    with pytest.raises(parsing.RefusedError) as error:
        PreTrainedConfig.from_pretrained(tmp_path, cli_overrides=[flag])
    assert str(error.value) == line


def test_a_process_that_is_no_command_of_ours_is_left_to_lerobot(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parsing, "_in_one_line", False)
    with draccus.config_type("json"), pytest.raises(SystemExit) as ended:
        draccus.parse(TrainRLServerPipelineConfig, str(write_run_config(tmp_path, 1)), args=["--nonsense=3"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ")


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--nonsense=3", "error: unrecognized arguments: --nonsense=3"),
        ("--seed=abc", "error: seed: Couldn't parse 'abc' into an int"),
        (
            "--algorithm.concurrency.actor=processes",
            "error: algorithm.concurrency.actor must be threads; got processes. "
            "LeRobot's actor sends nothing in processes mode.",
        ),
    ],
)
def test_lerobots_own_actor_ends_in_one_line_too(tmp_path, flag, line):
    """Refused by argparse, by draccus, and by the validated config."""
    arguments = [f"--config_path={write_run_config(tmp_path, 1)}", flag]
    actor = Command(
        "lerobot.rl.actor", [*arguments, "--env.discover_packages_path=bridge.plugin"], tmp_path / "log"
    )
    assert actor.wait(timeout=300) == 1
    said = (tmp_path / "log").read_text().splitlines()
    assert said[-1] == line
    assert len(said) <= 2  # that torchcodec has no FFmpeg
