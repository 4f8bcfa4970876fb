"""The recipe's options: each is read by somebody, and a bad value is refused by name."""

import ast
import dataclasses
import json
import re
import typing
from pathlib import Path
from typing import Literal

import pytest
from by_recipe import make_recipe

from pirl_jax.likelihood import modes
from pirl_jax.recipe import (
    CriticConfig,
    DemonstrationsConfig,
    LaunchConfig,
    NoiseConfig,
    Recipe,
    VideosConfig,
    ranges,
)
from pirl_jax.recipe.idle import IDLE, refuse_idle
from pirl_jax.recipe.renamed import GONE, RENAMED, refuse_old_names

ROOT = Path(__file__).resolve().parents[2]


def attributes_read() -> set[str]:
    """Names read as ``something.name`` anywhere but where the options are declared and checked."""
    names = set()
    for file in [*ROOT.glob("pirl_jax/**/*.py"), *ROOT.glob("bridge/**/*.py")]:
        if file.parent.name == "recipe":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
    return names


SECTIONS = {
    field.name: type(getattr(Recipe(), field.name))
    for field in dataclasses.fields(Recipe)
    if dataclasses.is_dataclass(getattr(Recipe(), field.name))
} | {"launch": LaunchConfig}


@pytest.mark.parametrize("options", [Recipe, *SECTIONS.values()])
def test_no_option_does_nothing(options):
    dead = {field.name for field in dataclasses.fields(options)} - attributes_read()
    assert not dead, f"{options.__name__} has options that nothing reads"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_number_of_a_section_has_a_range_or_is_a_choice(section):
    hints = typing.get_type_hints(SECTIONS[section])
    choices = {
        name for name, hint in hints.items() if hint in (bool, str) or typing.get_origin(hint) is Literal
    }
    assert set(hints) - choices == set(ranges.RANGES[section])


def test_the_modes_that_may_be_chosen_are_those_there_are():
    assert typing.get_args(typing.get_type_hints(NoiseConfig)["mode"]) == tuple(modes.MODES)


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("rollout", {"episodes_per_update": 0}, "algorithm.rollout.episodes_per_update must be ≥ 1; got 0"),
        (
            "objective",
            {"max_behaviour_weight": 0.0},
            "objective.max_behaviour_weight must be above 0",
        ),
        ("advantage", {"gamma": 1.5}, r"algorithm.advantage.gamma must be in \[0, 1\]"),
        ("rollout", {"max_staleness": -1}, "algorithm.rollout.max_staleness must be ≥ 0"),
        ("optimizer", {"microbatch_size": 0}, "algorithm.optimizer.microbatch_size must be ≥ 1; got 0"),
        ("optimizer", {"microbatch_size": None}, "microbatch_size must be auto or a number; got null"),
        ("optimizer", {"microbatch_size": True}, "microbatch_size must be a number; got True"),
        ("optimizer", {"microbatch_size": "all"}, "algorithm.optimizer.microbatch_size must be auto"),
        ("optimizer", {"lr_warmup_steps": -1}, "algorithm.optimizer.lr_warmup_steps must be ≥ 0"),
        ("objective", {"reference_kl_coef": -0.1}, "algorithm.objective.reference_kl_coef must be ≥ 0"),
        ("launch", {"actors": 0}, "algorithm.launch.actors must be ≥ 1; got 0"),
        ("launch", {"devices": (0, -1)}, "algorithm.launch.devices must be ≥ 0; got -1"),
        ("launch", {"hang_after_s": 0}, "algorithm.launch.hang_after_s must be above 0; got 0"),
        ("serve", {"max_wait_ms": 1e20}, r"algorithm.serve.max_wait_ms must be in \[0, 60000\]; got 1e\+20"),
        ("serve", {"host": "::1"}, r"serve.host must be a name or an address, IPv6 in brackets .* got '::1'"),
        ("serve", {"host": ""}, "serve.host must be a name or an address"),
        ("serve", {"host": " 127.0.0.1"}, "serve.host must be a name or an address"),
        ("serve", {"host": "0.0.0.0"}, "must be an address at which actors find the servers; got 0.0.0.0"),
        (
            "serve",
            {"port": 65534, "replicas": 3},
            "65534 leaves too few ports for .*: the last is 65535",
        ),
        ("push", {"dtype": "float16"}, "algorithm.push.dtype must be float32 or bfloat16"),
        ("objective", {"aggregation": "token"}, "algorithm.objective.aggregation must be chunk or action"),
        ("objective", {"loss_weighting": "task"}, "loss_weighting must be chunk or episode; got 'task'"),
        ("optimizer", {"adaptive_lr": True}, "needs algorithm.optimizer.target_kl"),
        ("rollout", {"task_window": 0}, "algorithm.rollout.task_window must be ≥ 1; got 0"),
        ("rollout", {"task_success_range": (0.9, 0.1)}, "task_success_range must be two numbers, the lower"),
        ("rollout", {"task_success_range": (0.1, 1.5)}, r"task_success_range must be in \[0, 1\]; got 1.5"),
        ("rollout", {"group_return_range": (0.9, 0.1)}, "group_return_range must be two numbers, the lower"),
        ("advantage", {"estimator": "montecarlo"}, "algorithm.advantage.estimator must be gae or group"),
        ("critic", {"input": "dit"}, "algorithm.critic.input must be vlm or expert; got 'dit'"),
        ("critic", {"extra_steps": -1}, "algorithm.critic.extra_steps must be ≥ 0; got -1"),
        ("critic", {"warmup_updates": -1}, "algorithm.critic.warmup_updates must be ≥ 0; got -1"),
        ("critic", {"huber_delta": 0.0}, "algorithm.critic.huber_delta must be above 0; got 0.0"),
        ("critic", {"value_clip": -0.2}, "algorithm.critic.value_clip must be above 0"),
        ("critic", {"lr": -1e-4}, "algorithm.critic.lr must be ≥ 0"),
        ("critic", {"hidden_dims": (256, 0)}, "algorithm.critic.hidden_dims must be ≥ 1; got 0"),
        ("optimizer", {"lr": -1e-5}, "algorithm.optimizer.lr must be ≥ 0; got -1e-05"),
        ("optimizer", {"lr": float("nan")}, "algorithm.optimizer.lr must be ≥ 0; got nan"),
        ("optimizer", {"eps": 0.0}, "algorithm.optimizer.eps must be above 0"),
        ("optimizer", {"betas": (0.9, 1.0)}, r"algorithm.optimizer.betas must be in \[0, 1\); got 1.0"),
        ("optimizer", {"target_kl": -0.1}, "algorithm.optimizer.target_kl must be above 0"),
        ("optimizer", {"weight_decay": -0.1}, "algorithm.optimizer.weight_decay must be ≥ 0"),
        ("objective", {"clip_ratio": -0.2}, "algorithm.objective.clip_ratio must be above 0"),
        ("demonstrations", {"coef": -1.0}, "algorithm.demonstrations.coef must be ≥ 0; got -1.0"),
        ("demonstrations", {"final_coef": 0.1, "decay_updates": 3}, "final_coef ≤ coef"),
        ("demonstrations", {"coef": 1.0, "final_coef": 0.1}, "final_coef needs decay_updates > 0"),
        ("demonstrations", {"decay_updates": -1}, "algorithm.demonstrations.decay_updates must be ≥ 0"),
        ("demonstrations", {"batch_size": 0}, "algorithm.demonstrations.batch_size must be ≥ 1; got 0"),
        ("demonstrations", {"max_samples": 0}, "algorithm.demonstrations.max_samples must be ≥ 1; got 0"),
        ("noise", {"correlation": 1.0}, r"algorithm.noise.correlation must be in \[0, 1\)"),
        ("noise", {"replay": "all"}, "algorithm.noise.replay must be last or full"),
        ("noise", {"gripper": "gumbel"}, "algorithm.noise.gripper must be deterministic or"),
        ("noise", {"gripper_temperature": 0.0}, "noise.gripper_temperature must be above 0"),
        ("noise", {"mode": "flow_noise", "replay": "full"}, "replay must be last with noise.mode=flow_noise"),
        ("objective", {"dual_clip": 1.0}, "algorithm.objective.dual_clip must be above 1; got 1.0"),
        ("objective", {"entropy_coef": -0.1}, "algorithm.objective.entropy_coef must be ≥ 0"),
    ],
)
def test_a_bad_value_is_refused_by_name(section, settings, message):
    with pytest.raises(ValueError, match=message):
        SECTIONS[section](**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"estimator": "group", "group_size": 2, "task_success_range": (0.1, 0.9)},
            "task_success_range is for advantage.estimator=gae",
        ),
        ({"estimator": "group"}, "needs algorithm.rollout.group_size ≥ 2"),
        ({"estimator": "group", "group_size": 5}, "divides rollout.episodes_per_update=512; got 5"),
        ({"group_return_range": (0.1, 0.9)}, "group_return_range is for advantage.estimator=group"),
        ({"entropy_coef": 0.005}, "algorithm.objective.entropy_coef=0.005 needs noise.mode=flow_noise"),
    ],
)
def test_sections_that_do_not_fit_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_recipe(**settings)


GROUP = {"estimator": "group", "group_size": 2}


@pytest.mark.parametrize(
    ("settings", "named", "obeyed"),
    [
        (
            {**GROUP, "critic": CriticConfig(warmup_updates=3)},
            "critic.warmup_updates=3",
            {"estimator": "gae"},
        ),
        (
            {**GROUP, "critic": CriticConfig(hidden_dims=(16,), extra_steps=3)},
            "critic.hidden_dims=(16,), algorithm.critic.extra_steps=3",
            {"estimator": "gae"},
        ),
        ({**GROUP, "gamma": 0.9}, "advantage.gamma=0.9", {"estimator": "gae"}),
        ({**GROUP, "gae_lambda": 1.0}, "advantage.gae_lambda=1.0", {"estimator": "gae"}),
        ({**GROUP, "normalize": False}, "advantage.normalize=False", {"estimator": "gae"}),
        ({**GROUP, "bootstrap_truncation": False}, "bootstrap_truncation=False", {"estimator": "gae"}),
        ({"min_std": 0.1, "normalize": False}, "advantage.min_std=0.1", {"normalize": True}),
        (
            {"noise": NoiseConfig(std_range=(0.1, 1.0), head_hidden_dims=(4,))},
            "noise.std_range=(0.1, 1.0), algorithm.noise.head_hidden_dims=(4,)",
            {"noise": NoiseConfig(mode="flow_noise", head_hidden_dims=(4,))},
        ),
        (
            {"noise": NoiseConfig(gripper_temperature=2.0)},
            "noise.gripper_temperature=2.0",
            {"noise": NoiseConfig(gripper="bernoulli", gripper_temperature=2.0)},
        ),
        ({"max_behaviour_weight": 2.0}, "objective.max_behaviour_weight=2.0", {"decoupled": True}),
        ({"task_window": 8}, "rollout.task_window=8", {"task_success_range": (0.1, 0.9)}),
        (
            {"demonstrations": DemonstrationsConfig(batch_size=8, decay_updates=2)},
            "demonstrations.decay_updates=2, algorithm.demonstrations.batch_size=8",
            {"demonstrations": DemonstrationsConfig(coef=0.1, batch_size=8)},
        ),
        (
            {"videos": VideosConfig(every_episodes=0, keep=8)},
            "videos.keep=8",
            {"videos": VideosConfig(every_episodes=8, keep=8)},
        ),
    ],
)
def test_settings_that_another_choice_leaves_without_effect_are_refused(settings, named, obeyed):
    with pytest.raises(ValueError, match=re.escape(f"{named} would do nothing: ")):
        refuse_idle(make_recipe(**settings))
    refuse_idle(make_recipe(**(settings | obeyed)))


def test_what_may_be_without_effect_exists():
    for idle in IDLE:
        for section, names in idle.settings.items():
            assert set(names) <= {field.name for field in dataclasses.fields(SECTIONS[section])}


def test_lists_are_as_good_as_tuples_and_the_defaults_do_no_harm():
    refuse_idle(make_recipe(**GROUP, hidden_dims=[1024, 512, 256]))


def test_the_defaults_are_valid():
    Recipe()
    refuse_idle(Recipe())
    make_recipe(noise=NoiseConfig(mode="flow_noise"), entropy_coef=0.005)


def test_every_old_name_leads_to_a_setting_that_exists():
    for new in RENAMED.values():
        section, _, name = new.partition(".")
        assert section in SECTIONS
        assert not name or name in {field.name for field in dataclasses.fields(SECTIONS[section])}


def test_old_names_are_refused_by_their_new_ones_wherever_they_stand(tmp_path):
    preset, config = tmp_path / "preset.json", tmp_path / "run.json"
    preset.write_text(json.dumps({"type": "pi_rl", "advantage": "group"}))
    config.write_text(json.dumps({"algorithm": {"type": "pi_rl", "anchor": {"coef": 1.0}}}))
    for argument, old, new in (
        ("--algorithm.lr=1e-5", "algorithm.lr in the command line", "algorithm.optimizer.lr"),
        ("--algorithm.anchor.coef=1", "algorithm.anchor in the command line", "algorithm.demonstrations"),
        ("--algorithm.advantage=group", "algorithm.advantage", "algorithm.advantage.estimator"),
        (
            f"--algorithm=include {preset}",
            f"algorithm.advantage in {preset}",
            "algorithm.advantage.estimator",
        ),
        (f"--config_path={config}", f"algorithm.anchor in {config}", "algorithm.demonstrations"),
    ):
        with pytest.raises(ValueError, match=re.escape(old)) as error:
            refuse_old_names([argument])
        assert new in str(error.value)


@pytest.mark.parametrize("name", GONE)
def test_a_setting_that_is_gone_is_refused_with_the_reason(tmp_path, name):
    config = tmp_path / "cfg.json"
    config.write_text(json.dumps({"algorithm": {"type": "pi_rl", name: 1}}))
    for argument in (f"--config_path={config}", f"--algorithm.{name}=1"):
        with pytest.raises(ValueError, match=rf"algorithm\.{name} in .* is gone: an actor .* Leave it out"):
            refuse_old_names([argument])


def test_todays_names_and_other_algorithms_are_left_alone(tmp_path):
    config = tmp_path / "run.json"
    config.write_text(json.dumps({"algorithm": {"type": "sac", "gamma": 0.9}}))
    refuse_old_names(
        ["--algorithm.optimizer.lr=1e-5", "--algorithm.advantage.estimator=group", "--algorithm.critic.lr=1"]
    )
    refuse_old_names([f"--config_path={config}", "--config_path=/nowhere.json", "--lr=1", "positional"])


def test_the_documentation_lists_what_has_moved():
    text = (ROOT / "docs" / "configuration.md").read_text()
    listed = dict(re.findall(r"^\| `algorithm\.([\w.]+)` \| `algorithm\.([\w.]+)` \|$", text, re.MULTILINE))
    assert listed == dict(RENAMED)
