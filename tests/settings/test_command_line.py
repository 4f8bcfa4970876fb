"""What stands beside a config file's ``policy.path``, there and on the command line, is obeyed."""

import json
import subprocess
import sys

import pytest
from forked import Command
from huggingface_hub import HfApi
from lerobot.configs import parser
from tiny import tiny_policy_config, write_run_config

from bridge.plugin import command_line, transport
from bridge.settings.sft_config import SFTConfig
from pirl_jax import learner
from pirl_jax.command import run_command


@pytest.fixture(autouse=True)
def _of_this_command_alone(monkeypatch):
    """LeRobot keeps what it has read in its module; a process is one command elsewhere."""
    monkeypatch.setattr(parser, "_config_path_args", {})
    monkeypatch.setattr(parser, "_config_yaml_overrides", {})


@pytest.fixture
def config(tmp_path):
    """Write a run's config whose policy is a checkpoint's; return a function that changes the section."""
    base = tmp_path / "base"
    base.mkdir()
    tiny_policy_config(tokenizer_name=str(tmp_path / "tokenizer"), optimizer_lr=3e-3)._save_pretrained(base)
    path = write_run_config(tmp_path, 50051)

    def write(**section):
        values = json.loads(path.read_text())
        values["policy"] = {"path": str(base), **section}
        path.write_text(json.dumps(values))
        return path

    return write


@pytest.fixture
def parsed(monkeypatch):
    """Return the config that the learner's command line stands for, validated."""
    # Other tests of this process may have imported LeRobot's actor, by which the plugin tells where it is.
    monkeypatch.setattr(transport, "is_actor", lambda: False)

    def run(path, *flags, command=learner.command):
        configs = []
        monkeypatch.setattr(sys, "argv", ["command", f"--config_path={path}", *flags])
        command(configs.append)
        return configs[0]

    return run


def sft(run):
    from bridge.plugin.command_line import prepare

    def config_class():
        prepare()
        return SFTConfig

    run_command(run, config_class)


def test_an_option_of_the_policy_beside_a_path_in_the_file_is_obeyed(config, parsed):
    cfg = parsed(config(), "--policy.dtype=bfloat16", "--policy.num_denoising_steps=3")
    assert (cfg.policy.dtype, cfg.policy.num_denoising_steps) == ("bfloat16", 3)
    assert cfg.policy.hidden_size == tiny_policy_config().hidden_size  # the checkpoint's


def test_the_warm_start_obeys_it_too(config, parsed, tmp_path):
    path = config()
    values = json.loads(path.read_text())
    values = {name: values[name] for name in ("dataset", "policy", "seed")}
    path.write_text(json.dumps(values | {"output_dir": str(tmp_path / "out")}))
    assert parsed(path, "--policy.dtype=bfloat16", command=sft).policy.dtype == "bfloat16"


@pytest.mark.slow
def test_a_launch_reads_it_as_the_learner_does(config):
    command = [sys.executable, "-m", "bridge.launch.facts", f"--config_path={config()}"]
    done = subprocess.run([*command, "--policy.dtype=bfloat16"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.startswith("facts: ")) == (0, True), done.stderr


def test_lists_objects_and_nulls_of_the_file_are_obeyed(config, parsed):
    """LeRobot hands on what is neither."""
    path = config(
        optimizer_betas=[0.5, 0.6],
        domain_feature_key=None,
        resize_imgs_with_padding=[32, 32],
        output_features={"action": {"type": "ACTION", "shape": [3]}},
        num_denoising_steps=4,
    )
    cfg = parsed(path, "--policy.resize_imgs_with_padding=[48, 48]")
    assert tuple(cfg.policy.optimizer_betas) == (0.5, 0.6)
    assert tuple(cfg.policy.resize_imgs_with_padding) == (48, 48)  # the command line comes after the file
    assert cfg.policy.output_features["action"].shape == (3,)
    assert cfg.policy.num_denoising_steps == 4


def test_the_command_lines_path_is_taken_before_the_files(config, parsed, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    tiny_policy_config(num_denoising_steps=2)._save_pretrained(other)
    cfg = parsed(config(), f"--policy.path={other}", "--policy.dtype=bfloat16")
    assert (cfg.policy.num_denoising_steps, cfg.policy.dtype) == (2, "bfloat16")


def test_a_path_and_a_type_end_in_one_line(config, parsed):
    with pytest.raises(SystemExit, match=r"^error: Cannot specify both --policy\.path and --policy\.type$"):
        parsed(config(), "--policy.type=xvla")


def test_a_policy_section_that_a_checkpoint_replaces_is_named(config, parsed, tmp_path, caplog):
    config()
    section = {"num_denoising_steps": 3, "dtype": "bfloat16", "optimizer_lr": 3e-3}
    path = write_run_config(tmp_path, 50051, policy=section)
    cfg = parsed(path, f"--policy.path={tmp_path / 'base'}", "--policy.dtype=bfloat16")
    assert cfg.policy.num_denoising_steps == 5
    (line,) = [line for line in caplog.messages if "of the config file has no effect here" in line]
    assert line.startswith("policy.num_denoising_steps of the config file")


@pytest.mark.parametrize(
    ("section", "flags", "wanted"),
    [
        ({}, (), False),
        ({"repo_id": "me/robot"}, (), True),
        ({"push_to_hub": True, "repo_id": "me/robot"}, (), True),
        ({"push_to_hub": False, "repo_id": "me/robot"}, (), False),
        ({}, ("--policy.push_to_hub=true", "--policy.repo_id=me/robot"), True),
        ({"push_to_hub": True, "repo_id": "me/robot"}, ("--policy.push_to_hub=false",), False),
    ],
)
def test_a_policy_is_pushed_if_someone_says_so_and_lerobots_default_is_nobodys_wish(
    config, parsed, caplog, monkeypatch, section, flags, wanted
):
    monkeypatch.setattr(command_line, "get_token", lambda: None)
    assert tiny_policy_config(push_to_hub=True).repo_id is None
    cfg = parsed(config(**section), *flags)
    assert cfg.policy.push_to_hub == wanted
    assert cfg.policy.repo_id == ("me/robot" if wanted or section else None)
    assert ("there is no token of the Hugging Face Hub" in caplog.text) == wanted


def test_the_repository_of_the_base_is_not_the_runs(config, parsed, tmp_path):
    path = config()
    tiny_policy_config(push_to_hub=True, repo_id="them/base")._save_pretrained(tmp_path / "base")
    cfg = parsed(path)
    assert (cfg.policy.push_to_hub, cfg.policy.repo_id) == (False, None)


def test_a_push_without_a_repository_or_a_checkpoint_is_refused_at_the_start(config, parsed):
    with pytest.raises(SystemExit, match=r"^error: 'repo_id' argument missing"):
        parsed(config(push_to_hub=True))
    with pytest.raises(
        SystemExit, match=r"pushes the last checkpoint, and save_checkpoint=false writes none"
    ):
        parsed(config(repo_id="me/robot"), "--save_checkpoint=false")


def test_a_policy_by_type_asks_for_no_repository_either(parsed, tmp_path, caplog):
    path = write_run_config(tmp_path, 50051)
    values = json.loads(path.read_text())
    del values["policy"]["push_to_hub"]
    path.write_text(json.dumps(values))
    assert not parsed(path).policy.push_to_hub
    assert "push" not in caplog.text


def test_a_config_without_a_dataset_ends_in_one_line(config, parsed):
    path = config()
    values = json.loads(path.read_text())
    del values["dataset"]
    path.write_text(json.dumps(values))
    with pytest.raises(SystemExit, match=r'^error: the config has no dataset: add "dataset": \{"repo_id"'):
        parsed(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "outputs/run/checkpoints/last",
            r"there is no folder policy\.path=outputs/run/checkpoints/last; give a",
        ),
        ("./run", r"there is no folder policy\.path=\./run; give a checkpoint's"),
        ("{base}/config.json", r"policy\.path=.*/config\.json is a file; give the folder around it"),
    ],
)
def test_a_wrong_policy_folder_is_not_looked_for_on_the_hub(
    config, parsed, tmp_path, path, message, monkeypatch
):
    monkeypatch.setattr("lerobot.configs.policies.hf_hub_download", lambda **_: pytest.fail("it was"))
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        parsed(config(), f"--policy.path={path.format(base=tmp_path / 'base')}")
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        parsed(config(path=path.format(base=tmp_path / "base")))


@pytest.mark.parametrize("command", [learner.command, sft])
def test_a_model_that_the_hub_cannot_give_is_named_at_once(config, parsed, monkeypatch, command):
    """LeRobot's own download would try for half a minute."""
    asked = []

    def unreachable(self, repo_id, **_):
        asked.append(repo_id)
        raise ConnectionError("No connection.\nAnd more.")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    monkeypatch.setattr("lerobot.configs.policies.hf_hub_download", lambda **_: pytest.fail("it tries long"))
    with pytest.raises(SystemExit) as ended:
        parsed(config(), "--policy.path=me/robot", command=command)
    assert ended.value.code == (
        "error: there is no folder policy.path=me/robot, and the Hugging Face Hub does not provide it "
        "(No connection). Check the name and the connection."
    )
    assert asked == ["me/robot"]


def test_a_model_that_was_downloaded_before_needs_no_connection(tmp_path, monkeypatch):
    (tmp_path / "config.json").touch()
    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: pytest.fail("it asks"))
    monkeypatch.setattr(
        command_line, "try_to_load_from_cache", lambda *_, **__: str(tmp_path / "config.json")
    )
    command_line.check_folder("me/robot")


def test_a_damaged_or_missing_file_is_named(config, parsed, tmp_path):
    path = config()
    (tmp_path / "base" / "config.json").write_text("{")
    with pytest.raises(SystemExit, match=r"^error: policy\.path=.*/base has a damaged config\.json: "):
        parsed(path)
    path.write_text("{")
    with pytest.raises(SystemExit, match=r"^error: config_path=.*run\.json is no JSON: "):
        parsed(path)
    with pytest.raises(SystemExit, match=r"^error: config_path=nowhere\.json cannot be read: No such file"):
        parsed("nowhere.json")
    path.write_text("[]")
    with pytest.raises(SystemExit, match=r"^error: config_path=.*run\.json holds no JSON object"):
        parsed(path)


def test_going_on_from_no_checkpoint_is_refused_with_what_to_give(config, parsed):
    with pytest.raises(
        SystemExit, match=r"^error: --resume=true goes on from a checkpoint, .*no policy.path"
    ):
        parsed(config(), "--resume=true")


def test_lerobots_own_actor_obeys_an_option_beside_a_path_in_the_file(config, tmp_path):
    """The number is refused by the policy's config, which shows that it has arrived there."""
    flags = [
        "--env.discover_packages_path=bridge.plugin",
        "--policy.chunk_size=1",
        "--policy.n_action_steps=2",
    ]
    log = tmp_path / "log"
    assert Command("lerobot.rl.actor", [f"--config_path={config()}", *flags], log).wait(300)
    assert "`n_action_steps` (2) must be <= `chunk_size` (1)" in log.read_text()
