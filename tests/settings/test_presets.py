"""The presets of ``configs/presets``, given as a user gives them: to the config, before other flags."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import draccus
import pytest
from lerobot.configs import parser
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from tiny import tiny_policy_config, write_run_config

import bridge.plugin
from bridge.settings.learner_config import LearnerConfig
from bridge.settings.sft_config import SFTConfig
from bridge.settings.unused import (
    IGNORED_IN_RL,
    IGNORED_WITH_PRESET,
    IGNORED_WITHOUT_DEMONSTRATIONS,
    Given,
    check,
)
from pirl_jax.likelihood.modes import channel_scale
from pirl_jax.recipe import Recipe
from pirl_jax.trees import merge
from pirl_jax.xvla.channels import xvla_groups

bridge.plugin.register()

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "configs" / "presets").glob("*.json"))


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Parse a command line as LeRobot's actor and our learner do, from the repository's root."""
    config = write_run_config(tmp_path, 50051)
    monkeypatch.chdir(ROOT)

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["command", f"--config_path={config}", *flags])

        @parser.wrap()
        def parsed(cfg: TrainRLServerPipelineConfig) -> TrainRLServerPipelineConfig:
            cfg.validate()
            return cfg

        return parsed()

    return run


def include(path):
    return f"--algorithm=include {path.relative_to(ROOT)}"


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_valid_and_every_number_of_it_arrives(path, command):
    wanted = json.loads(path.read_text())
    episodes = wanted.get("rollout", {}).get(
        "episodes_per_update", 64
    )  # the tiny config's are too few for groups
    recipe = command(include(path), f"--algorithm.rollout.episodes_per_update={episodes}").algorithm
    assert wanted.pop("type") == "pi_rl"
    for name, section in wanted.items():
        for key, part in section.items():
            got = getattr(getattr(recipe, name), key)
            assert (list(got) if isinstance(part, list) else got) == part, (name, key)
    channel_scale(recipe.noise, xvla_groups("ee6d", 20), 20)


def test_what_a_preset_does_not_name_stays_the_configs(command):
    recipe = command(include(ROOT / "configs/presets/async.json")).algorithm
    assert recipe.rollout.max_chunks == 8
    assert recipe.noise.level == 0.1
    assert recipe.critic.hidden_dims == (16,)
    assert recipe.actor_learner_config.learner_port == 50051


def test_flags_after_a_preset_change_it(command):
    preset = include(ROOT / "configs/presets/grpo.json")
    recipe = command(preset, "--algorithm.rollout.group_size=2", "--algorithm.noise.level=0.3").algorithm
    assert (recipe.advantage.estimator, recipe.rollout.group_size, recipe.noise.level) == ("group", 2, 0.3)


def test_the_papers_preset_is_the_papers(command):
    """What the paper prints for LIBERO are ``Recipe``'s defaults but for these."""
    recipe = command(include(ROOT / "configs/presets/pirl_paper.json")).algorithm
    differing = set()
    for name in ("rollout", "advantage", "objective", "optimizer", "push"):
        ours, defaults = (
            dataclasses.asdict(getattr(recipe, name)),
            dataclasses.asdict(getattr(Recipe(), name)),
        )
        differing |= {key for key in defaults if ours[key] != defaults[key]} - {"max_chunks"}
    assert differing == {
        "loss_weighting",
        "bootstrap_truncation",
        "weight_decay",
        "max_staleness",
        "microbatch_size",
    }
    # AdamW as it ran at publication: the file's adam_eps was not read, nor was a weight decay set.
    assert (recipe.optimizer.eps, recipe.optimizer.weight_decay) == (1e-8, 0.01)
    assert (recipe.noise.mode, recipe.critic.input) == ("flow_sde", "expert")
    # Of the code for π0; π0.5's is twice as wide.
    assert tuple(recipe.critic.hidden_dims) == (512, 256, 128)


def test_the_documentation_lists_every_preset():
    text = (ROOT / "docs" / "algorithms.md").read_text()
    assert set(re.findall(r"`presets/(\w+)\.json`", text)) == {path.stem for path in PRESETS}


RUNS = sorted((ROOT / "configs").glob("*.json"))


def config_of(path, **changes):
    """Decode a configuration as it stands, with a tiny policy in place of the checkpoint that it names."""
    values = json.loads(path.read_text()) | changes
    kind = LearnerConfig if "algorithm" in values else SFTConfig
    if "path" in values["policy"]:
        del values["policy"]
    cfg = draccus.decode(kind, values)
    cfg.policy = cfg.policy or tiny_policy_config()
    return cfg


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_our_own_configurations_set_nothing_that_has_no_effect(path, caplog):
    cfg = config_of(path)
    ignored = IGNORED_WITH_PRESET
    if isinstance(cfg, LearnerConfig):
        ignored = IGNORED_IN_RL | IGNORED_WITHOUT_DEMONSTRATIONS
    check(cfg, Given.of(cfg), ignored)
    assert "no effect" not in caplog.text


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_can_be_put_over_each_of_our_configurations(preset):
    for path in RUNS:
        algorithm = json.loads(path.read_text()).get("algorithm")
        if algorithm is not None:
            config_of(path, algorithm=merge(algorithm, json.loads(preset.read_text())))
