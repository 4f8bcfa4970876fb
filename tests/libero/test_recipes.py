"""The LIBERO recipes of ``configs/``: LeRobot reads them, and they fit a policy and its environment."""

import json
from pathlib import Path

import draccus
import jax
import pytest
from lerobot.configs import PreTrainedConfig
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from tiny_libero import libero_policy_config

from bridge import plugin
from bridge.settings.learner_config import episode_spec
from bridge.settings.sft_config import SFTConfig
from bridge.weights.export import policy_config
from pirl_jax.xvla.init import init_params

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("name", ["24gb", "80gb", "multi", "small"])
def test_a_recipe_is_read_by_lerobot_and_fits_libero(name, tmp_path):
    plugin.register()
    config = json.loads((CONFIGS / f"pirl_libero_{name}.json").read_text())
    assert list(config["policy"]) == ["path"]
    chunk = 10 if name == "small" else 30  # the published policies', executed whole
    policy = libero_policy_config(chunk_size=chunk, n_action_steps=chunk)
    config["policy"] = draccus.encode(policy, PreTrainedConfig)
    config["output_dir"] = str(tmp_path / "output")
    (tmp_path / "run.json").write_text(json.dumps(config))
    cfg = TrainRLServerPipelineConfig.from_pretrained(tmp_path / "run.json")
    cfg.validate()
    recipe = cfg.algorithm
    sizes = policy_config(cfg.policy), recipe.noise, recipe.rollout.max_chunks
    spec = episode_spec(cfg.policy, *sizes, cfg.env)
    assert len(spec.task_names) == {"24gb": 10, "80gb": 10, "multi": 40, "small": 1}[name]
    assert spec.record_dims.row_size < 1 << 22


def test_the_small_policy_can_be_built():
    cfg = draccus.parse(SFTConfig, CONFIGS / "pirl_libero_small_sft.json", args=[])
    tree = jax.eval_shape(lambda: init_params(policy_config(cfg.policy), jax.random.key(0)))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert 1.4e6 < parameters < 1.6e6
