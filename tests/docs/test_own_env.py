"""docs/how_to/own_env: a package of its own, which LeRobot discovers and plays as its page says."""

import json
import re
import runpy
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from lerobot.configs import parser
from lerobot.datasets import LeRobotDataset
from lerobot.envs.configs import EnvConfig
from tiny import build_tokenizer, tiny_policy_config

from bridge.plugin import transport
from bridge.plugin.chunk_env import ChunkEnv
from bridge.wire.record import Record, pack
from pirl_jax import learner

DOCS = Path(__file__).resolve().parents[2] / "docs"
PACKAGE = DOCS / "how_to" / "own_env"
IMAGE = "observation.images.top"


@pytest.fixture
def installed(monkeypatch):
    """Have the package on the path, as pip leaves it; what it registers goes with the test."""
    assert tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["name"] == "reach-env"
    monkeypatch.syspath_prepend(str(PACKAGE))
    yield
    EnvConfig._choice_registry.pop("reach", None)
    sys.modules.pop("reach_env", None)


@pytest.fixture
def config(tmp_path, monkeypatch, installed):
    """Read ``rl.json`` as the learner does, its policy a tiny one of the sizes that ``sft.json`` has."""
    monkeypatch.setattr(transport, "is_actor", lambda: False)
    monkeypatch.setattr(parser, "_config_path_args", {})
    monkeypatch.setattr(parser, "_config_yaml_overrides", {})
    wanted = json.loads((PACKAGE / "sft.json").read_text())["policy"]
    sizes = {
        name: wanted[name] for name in ("chunk_size", "n_action_steps", "max_action_dim", "max_state_dim")
    }
    features = {name: parsed_features(wanted[name]) for name in ("input_features", "output_features")}
    tokenizer = build_tokenizer(tmp_path / "tokenizer")
    tiny_policy_config(tokenizer_name=str(tokenizer), **sizes, **features)._save_pretrained(tmp_path)
    arguments = [
        f"--config_path={PACKAGE / 'rl.json'}",
        "--algorithm.discover_packages_path=reach_env",
        f"--policy.path={tmp_path}",
        f"--output_dir={tmp_path / 'out'}",
    ]
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    found = []
    learner.command(found.append)
    return found[0]


def parsed_features(given):
    from lerobot.configs import FeatureType, PolicyFeature

    return {
        key: PolicyFeature(FeatureType[each["type"]], tuple(each["shape"])) for key, each in given.items()
    }


def row(action):
    """Pack a chunk of four steps that are the same, as an actor's policy hands it to its environment."""
    actions = np.tile(np.asarray(action, np.float32), (4, 1))
    latents = np.zeros((6, 4, 2), np.float32)
    return pack(Record(actions, latents, np.zeros(4, np.float32), denoise_step=1, version=1))


def test_it_is_discovered_and_plays_chunks_to_success(config):
    assert config.env.type == "reach"
    assert config.env.observation_shapes == {IMAGE: (3, 64, 64), "observation.state": (2,)}
    env = config.env.make()
    assert isinstance(env, ChunkEnv)
    observation, _ = env.reset(seed=3)
    assert observation[IMAGE].shape == (1, 3, 64, 64)
    inner, chunks, over, reward = env.env.unwrapped, 0, False, 0.0
    while not over:
        aim = np.clip((inner.square - inner.point) / 4, -0.1, 0.1)
        observation, reward, terminated, truncated, info = env.step(row(aim))
        over, chunks = terminated or truncated, chunks + 1
    assert (terminated, reward, info["is_success"]) == (True, 1.0, True)
    assert 1 < chunks <= config.algorithm.rollout.max_chunks


def test_an_idle_point_runs_out_of_time(config):
    env = config.env.make()
    env.reset(seed=3)
    ends = [env.step(row(np.zeros(2)))[2:4] for _ in range(8)]
    assert ends == [(False, False)] * 7 + [(False, True)]


@pytest.mark.parametrize("page", ["how_to/own_environment.md", "how_to/own_dataset.md"])
def test_the_page_shows_the_files_as_they_are(page):
    text = (DOCS / page).read_text()
    shown = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert shown
    for file, block in shown:
        assert block in (PACKAGE / file).read_text(), file


def test_the_environment_itself_takes_about_thirty_lines():
    code = (PACKAGE / "reach_env" / "__init__.py").read_text().split("import ChunkedGymConfig")[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


@pytest.mark.parametrize("name", ["sft.json", "rl.json"])
def test_its_configurations_lead_from_one_to_the_next(name):
    values = json.loads((PACKAGE / name).read_text())
    recorded = "outputs/reach"
    if name == "sft.json":
        assert (values["dataset"]["root"], values["output_dir"]) == (f"{recorded}/dataset", f"{recorded}/sft")
        assert values["policy"]["tokenizer_name"] == f"{recorded}/tokenizer"
    else:
        assert values["policy"]["path"] == f"{recorded}/sft/checkpoints/last/pretrained_model"


def test_recording_writes_demonstrations_that_lerobot_opens(tmp_path, installed, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["record.py", str(tmp_path), "3"])
    runpy.run_path(str(PACKAGE / "record.py"), run_name="__main__")
    dataset = LeRobotDataset("me/reach", root=tmp_path / "dataset")
    assert f"3 demonstrations, {len(dataset)} frames" in capsys.readouterr().out
    wanted = json.loads((PACKAGE / "sft.json").read_text())["policy"]
    for key, each in (wanted["input_features"] | wanted["output_features"]).items():
        assert tuple(dataset[0][key].shape) == tuple(each["shape"])
    assert dataset[0]["task"] == "move the point onto the square"
    assert float(dataset[0]["action"].abs().max()) < 0.2
