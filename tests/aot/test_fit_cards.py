"""The recipes for X-VLA at the published size fit the cards they are for, actors included."""

import json
from pathlib import Path

import draccus
import pytest
from lerobot.configs import PreTrainedConfig
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from planned import plan_of
from published import published_config

from bridge import plugin
from bridge.settings.learner_config import episode_spec
from bridge.weights.export import policy_config
from pirl_jax.training.budget import GIB, Budget
from pirl_jax.training.fit import candidates, fit
from pirl_jax.training.needs import needs
from pirl_jax.training.plan import Observation

CONFIGS = Path(__file__).parents[2] / "configs"
SIZES = {"rtx4090_24gb": 24, "a100_80gb": 80, "h100_80gb": 80}
"""GiB, as the cards are sold."""
MINIBATCH = 1024
"""Of which a card of 24 GB cannot work on all at a time."""


def read(tmp_path, name, preset=None, **optimizer):
    """The run's config for the published network, random instead of downloaded."""
    plugin.register()
    config = json.loads((CONFIGS / f"{name}.json").read_text())
    config["policy"] = draccus.encode(published_config(push_to_hub=False), PreTrainedConfig)
    config["output_dir"] = str(tmp_path / "output")
    if preset:
        config["algorithm"] = json.loads((CONFIGS / f"presets/{preset}.json").read_text())
        config["algorithm"]["rollout"]["max_chunks"] = 27
    config["algorithm"]["optimizer"] |= optimizer
    (tmp_path / "run.json").write_text(json.dumps(config))
    cfg = TrainRLServerPipelineConfig.from_pretrained(tmp_path / "run.json")
    cfg.validate()
    return cfg


def observation_of(cfg):
    config = policy_config(cfg.policy)
    spec = episode_spec(cfg.policy, config, cfg.algorithm.noise, cfg.algorithm.rollout.max_chunks, cfg.env)
    images = (len(spec.image_keys), *spec.image_shape)
    return Observation(images, spec.num_tokens, config.dim_proprio, config.real_action_dim)


@pytest.mark.parametrize(
    ("name", "preset", "on", "actors", "expected"),
    [
        ("pirl_libero_24gb", None, "rtx4090_24gb", 1, 13.13),
        ("pirl_libero_80gb", None, "h100_80gb", 8, 17.41),
        ("pirl_libero_multi", None, "a100_80gb", 8, 17.93),
        ("pirl_libero_80gb", "pirl_paper", "h100_80gb", 8, 12.45),
    ],
)
def test_a_recipe_fits_its_card(name, preset, on, actors, expected, card, tmp_path):
    cfg = read(tmp_path, name, preset)
    recipe = cfg.algorithm
    found = needs(plan_of(recipe, cfg.policy, observation_of(cfg), card(on)), {})
    print(f"{preset or name} on {on}: {found.device / GIB:.2f} GiB, an actor {found.actor / GIB:.2f} GiB")
    assert found.device / GIB == pytest.approx(expected, rel=0.05)
    if recipe.memory_gb is not None:
        assert found.device <= 0.95 * recipe.memory_gb * GIB
    learner = recipe.memory_gb * GIB if recipe.memory_gb else found.device
    assert learner + actors * found.actor <= 0.9 * SIZES[on] * GIB


def test_4_gib_are_refused_and_more_memory_takes_more_of_a_minibatch(card, tmp_path):
    cfg = read(tmp_path, "pirl_libero_80gb", minibatch_size=MINIBATCH, microbatch_size="auto")
    plan = plan_of(cfg.algorithm, cfg.policy, observation_of(cfg), card("h100_80gb"))

    def chosen(gib):
        return fit(plan, Budget(gib * GIB, "a card")).plan.parts.recipe.optimizer.microbatch_size

    with pytest.raises(ValueError, match=r"does not fit its device: it takes .* GiB even with one point"):
        chosen(4)
    small, large = chosen(24), chosen(80)
    print(f"24 GiB: {small} points of {MINIBATCH} at a time; 80 GiB: {large}")
    assert small in candidates(MINIBATCH)
    assert small < (MINIBATCH if large == "auto" else large)
