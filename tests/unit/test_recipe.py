"""The recipe's options: each is read by somebody, and a bad value is refused by name."""

import ast
import dataclasses
from pathlib import Path

import pytest

from pirl_jax.recipe import AnchorConfig, CriticConfig, NoiseConfig, Recipe

ROOT = Path(__file__).resolve().parents[2]


def attributes_read() -> set[str]:
    """Names read as ``something.name`` anywhere but where the options are declared and checked."""
    names = set()
    for file in [*ROOT.glob("pirl_jax/**/*.py"), *ROOT.glob("bridge/**/*.py")]:
        if file.name == "recipe.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
    return names


@pytest.mark.parametrize("options", [Recipe, NoiseConfig, CriticConfig, AnchorConfig])
def test_no_option_does_nothing(options):
    dead = {field.name for field in dataclasses.fields(options)} - attributes_read()
    assert not dead, f"{options.__name__} has options that nothing reads"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes_per_update": 0}, "algorithm.episodes_per_update must be positive; got 0"),
        ({"max_behaviour_weight": 0.0}, "algorithm.max_behaviour_weight must be positive"),
        ({"gamma": 1.5}, r"algorithm.gamma must be in \[0, 1\]"),
        ({"max_staleness": -1}, "algorithm.max_staleness must be ≥ 0"),
        ({"lr_warmup_steps": -1}, "algorithm.lr_warmup_steps must be ≥ 0"),
        ({"reference_kl_coef": -0.1}, "algorithm.reference_kl_coef must be ≥ 0"),
        ({"push_dtype": "float16"}, "algorithm.push_dtype must be float32 or bfloat16"),
        ({"aggregation": "token"}, "algorithm.aggregation must be chunk or action"),
        ({"loss_weighting": "task"}, "algorithm.loss_weighting must be chunk or episode; got 'task'"),
        ({"adaptive_lr": True}, "needs algorithm.target_kl"),
        ({"task_window": 0}, "algorithm.task_window must be positive; got 0"),
        ({"task_success_range": (0.9, 0.1)}, "task_success_range must be two rates, 0 ≤ low < high ≤ 1"),
        (
            {"advantage": "group", "group_size": 2, "task_success_range": (0.1, 0.9)},
            "task_success_range is for advantage=gae",
        ),
        ({"advantage": "montecarlo"}, "algorithm.advantage must be gae or group"),
        ({"advantage": "group"}, "needs algorithm.group_size ≥ 2"),
        ({"advantage": "group", "group_size": 5}, "divides episodes_per_update=512; got 5"),
        ({"critic": CriticConfig(input="dit")}, "algorithm.critic.input must be vlm or expert; got 'dit'"),
        ({"critic": CriticConfig(extra_steps=-1)}, "algorithm.critic.extra_steps must be ≥ 0; got -1"),
        ({"critic": CriticConfig(warmup_updates=-1)}, "algorithm.critic.warmup_updates must be ≥ 0; got -1"),
        (
            {"advantage": "group", "group_size": 2, "critic": CriticConfig(warmup_updates=3)},
            "algorithm.critic.warmup_updates=3 would do nothing",
        ),
        ({"anchor": AnchorConfig(coef=-1.0)}, "0 ≤ final_coef ≤ coef.* got coef=-1.0"),
        ({"anchor": AnchorConfig(final_coef=0.1, decay_updates=3)}, "0 ≤ final_coef ≤ coef"),
        ({"anchor": AnchorConfig(coef=1.0, final_coef=0.1)}, "final_coef needs decay_updates > 0"),
        ({"anchor": AnchorConfig(coef=1.0, decay_updates=-1)}, "algorithm.anchor.decay_updates must be ≥ 0"),
        ({"anchor": AnchorConfig(batch_size=0)}, "algorithm.anchor.batch_size must be positive; got 0"),
        ({"anchor": AnchorConfig(max_samples=0)}, "algorithm.anchor.max_samples must be positive; got 0"),
        ({"noise": NoiseConfig(correlation=1.0)}, r"algorithm.noise.correlation must be in \[0, 1\)"),
        ({"noise": NoiseConfig(replay="all")}, "algorithm.noise.replay must be last or full"),
        ({"noise": NoiseConfig(gripper="gumbel")}, "algorithm.noise.gripper must be deterministic or"),
        ({"noise": NoiseConfig(gripper_temperature=0.0)}, "noise.gripper_temperature must be positive"),
        (
            {"noise": NoiseConfig(mode="flow_noise", replay="full")},
            "replay must be last with noise.mode=flow_noise",
        ),
        ({"entropy_coef": -0.1}, "algorithm.entropy_coef must be ≥ 0"),
        ({"entropy_coef": 0.005}, "algorithm.entropy_coef=0.005 needs noise.mode=flow_noise"),
    ],
)
def test_a_bad_value_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**settings).validate()


def test_the_defaults_are_valid():
    Recipe().validate()
    Recipe(noise=NoiseConfig(mode="flow_noise"), entropy_coef=0.005).validate()
