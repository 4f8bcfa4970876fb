"""A policy on the hub: what lies there, that LeRobot uses it from there, and what is said when it is refused.

The hub is a stand-in that speaks its HTTP API, large files included.
"""

import json
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
from hub import TOKEN, standing_in
from huggingface_hub import ModelCard, constants

from bridge.card.hub import push, push_at_end
from bridge.card.policy import Policy
from bridge.weights.beside import name_tokenizer, tokenizer_name

SETTINGS = {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}


@pytest.fixture
def hub(monkeypatch):
    """A hub that this process's client talks to, as one that may write."""
    with standing_in() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        huggingface_hub.close_session()
        yield hub
    huggingface_hub.close_session()


def cfg_of(run, **policy):
    section = {"push_to_hub": True, "repo_id": "me/robot", "private": True, **policy}
    return SimpleNamespace(steps=40, policy=SimpleNamespace(**section))


def test_a_run_that_is_over_pushes_all_that_its_policy_needs(run, hub, caplog):
    with caplog.at_level(logging.INFO):
        push_at_end(cfg_of(run), run, 40)
    assert caplog.messages[-1] == f"Model pushed to {hub.address}/me/robot"  # LeRobot's words
    assert [(made["name"], made["visibility"]) for made in hub.created] == [("robot", "private")]
    assert hub.messages == ["Upload policy weights, train config and readme"]
    files, policy = hub.files["me/robot"], Policy.read(run)
    assert set(files) == {
        *("config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"),
        *("train_config.json", "tokenizer.json", "tokenizer_config.json", "README.md", "learning_curve.png"),
    }
    assert files["model.safetensors"] == (policy.folder / "model.safetensors").read_bytes()
    assert json.loads(files["config.json"])["tokenizer_name"] == "me/robot"
    assert json.loads(files["train_config.json"])["policy"]["tokenizer_name"] == "me/robot"
    (tokenizer,) = [
        step["config"]["tokenizer_name"]
        for step in json.loads(files["policy_preprocessor.json"])["steps"]
        if step["registry_name"] == "tokenizer_processor"
    ]
    assert tokenizer == "me/robot"
    assert ModelCard(files["README.md"].decode()).data.library_name == "lerobot"
    assert tokenizer_name(policy.folder).endswith("/pretrained_model/tokenizer")  # as it was


def test_pushing_again_changes_the_repository_and_does_not_fail(run, hub):
    for _ in range(2):
        assert push(Policy.read(run), "robot") == f"{hub.address}/me/robot"
    assert len(hub.messages) == 2


@pytest.mark.parametrize(("done", "policy"), [(39, {}), (40, {"push_to_hub": False})])
def test_a_run_that_was_stopped_or_not_asked_pushes_nothing(run, hub, done, policy):
    push_at_end(cfg_of(run, **policy), run, done)
    assert hub.files == {}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda hub, patch: patch.setenv("HF_TOKEN", "another"), "it does not know who you are. Log in"),
        (lambda hub, patch: setattr(hub, "refuses", 403), "your token may not write there. Give a token"),
        (lambda hub, patch: setattr(hub, "refuses", 500), "Server error '500"),
        (lambda hub, patch: patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9"), "refused"),
        (lambda hub, patch: patch.setattr(constants, "HF_HUB_OFFLINE", True), "offline"),
    ],
    ids=["token", "private", "broken", "unreachable", "offline"],
)
def test_what_the_hub_has_against_it_is_one_line_and_costs_the_run_nothing(
    run, hub, monkeypatch, caplog, spoil, said
):
    spoil(hub, monkeypatch)
    with pytest.raises(ValueError) as told:
        push(Policy.read(run), "me/robot")
    assert said in str(told.value)
    assert len(str(told.value).splitlines()) == 1
    caplog.clear()
    push_at_end(cfg_of(run), run, 40)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "was not pushed to me/robot: " in line
    assert line.endswith(f"To try again: pirl card {run} --push")


def test_a_policy_without_all_of_its_weights_or_its_tokenizer_is_not_begun_with(run, hub):
    policy = Policy.read(run)
    (policy.folder / "model.safetensors").rename(run / "elsewhere")
    with pytest.raises(ValueError, match=rf"pirl convert {run} FOLDER --step=20"):
        push(policy, "me/robot")
    (run / "elsewhere").rename(policy.folder / "model.safetensors")
    (policy.folder / "tokenizer").rename(run / "elsewhere")
    name_tokenizer(policy.folder, str(policy.folder / "tokenizer"))
    with pytest.raises(ValueError, match=r"the tokenizer .* is not there, and nobody could use the policy"):
        push(policy, "me/robot")
    assert hub.created == []


LEROBOT_ALONE = """
import sys
for name in ("pirl_jax", "bridge", "jax", "jaxlib", "flax"):
    sys.modules[name] = None
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies import make_pre_post_processors
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy

policy = XVLAPolicy.from_pretrained("me/robot")
config = PreTrainedConfig.from_pretrained("me/robot")
pre, post = make_pre_post_processors(config, pretrained_path="me/robot")
image = torch.zeros(3, 64, 64, dtype=torch.uint8)
seen = {"observation.images.front": image, "observation.state": torch.zeros(5), "task": "pick up the cube"}
action = post(policy.select_action(pre(seen)))
print("acts:", tuple(action.shape), bool(torch.isfinite(action).all()))
"""


@pytest.mark.slow  # two processes that load torch; the first test of this file looks at the same files
def test_lerobot_alone_acts_with_what_the_command_has_pushed(run, tmp_path):
    with standing_in() as hub:
        place = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hub")}
        environment = os.environ | SETTINGS | place
        command = ["-m", "bridge.card", f"{run}/checkpoints/last", "--push", "--repo_id=me/robot"]
        for arguments in (command, ["-c", LEROBOT_ALONE]):
            done = subprocess.run(
                [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=900
            )
            assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "acts: (1, 4) True"
