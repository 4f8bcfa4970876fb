"""A run with one checkpoint of a tiny policy, as a learner leaves it."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import torch
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from tiny import tiny_policy_config, write_run_config
from watched_run import write_rows

from bridge import plugin
from bridge.weights.export import export_pretrained, policy_config
from bridge.weights.state_dict import params_from_state
from pirl_jax.run_folder.layout import checkpoint_folder, point, write_about

UPDATES = 40


@pytest.fixture(scope="session")
def params():
    torch.manual_seed(0)
    policy = XVLAPolicy(tiny_policy_config())
    return jax.tree.map(jnp.asarray, params_from_state(policy.state_dict(), policy_config(policy.config)))


@pytest.fixture(scope="session")
def made(tmp_path_factory, params):
    """A run's folder, made once."""
    tmp_path = tmp_path_factory.mktemp("made")
    plugin.register()
    algorithm = {"optimizer": {"lr": 3e-4, "minibatch_size": 8, "num_epochs": 1}}
    cfg = TrainRLServerPipelineConfig.from_pretrained(write_run_config(tmp_path, 50051, algorithm=algorithm))
    cfg.algorithm.policy_config = cfg.policy
    cfg.steps = UPDATES
    folder = tmp_path / "output"
    write_rows(folder, UPDATES)
    checkpoint = checkpoint_folder(folder, 20, UPDATES)
    export_pretrained(params, cfg, checkpoint / "pretrained_model")
    write_about(checkpoint, {"step": 20, "base": "lerobot/xvla-base"})
    point("last", checkpoint)
    return folder


@pytest.fixture
def run(tmp_path, made):
    """Return the run's folder: its last checkpoint is of update 20, of 40 that were done."""
    return Path(shutil.copytree(made, tmp_path / "output", symlinks=True))
