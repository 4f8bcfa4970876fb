"""LeRobot's own actor, started by its own command line, on LIBERO."""

import signal

import pytest
import torch
from assets import libero_config
from fake_learner import FakeLearner
from forked import Command
from lerobot.policies.xvla import XVLAPolicy
from tiny_libero import CHUNK, LENGTH, SIZE, libero_policy_config, write_libero_config

from bridge import plugin
from bridge.libero.schedule import Schedule
from bridge.settings.learner_config import episode_spec
from bridge.weights.export import policy_config
from bridge.wire.decode import decode_episode

pytestmark = pytest.mark.e2e


def test_the_stock_actor_plays_libero_and_the_learner_reads_its_episodes(tmp_path):
    from lerobot.rl.train_rl import TrainRLServerPipelineConfig
    from lerobot.transport.utils import transitions_to_bytes

    plugin.register()
    learner = FakeLearner(choose=Schedule(2, "round_robin").choose)
    torch.manual_seed(1)
    state = XVLAPolicy(libero_policy_config()).state_dict()
    head = {key: value for key, value in state.items() if key.startswith("model.transformer.")}
    learner.push({"version": torch.tensor(3), "level": torch.tensor(0.1).double(), "policy": head})
    path = write_libero_config(
        tmp_path, learner.port, task="libero_spatial,libero_object", task_ids=[1], task_sampling="round_robin"
    )
    cfg = TrainRLServerPipelineConfig.from_pretrained(path)
    cfg.validate()
    arguments = [f"--config_path={path}", "--env.discover_packages_path=bridge.plugin"]
    log = tmp_path / "actor.log"
    actor = Command("lerobot.rl.actor", arguments, log, **libero_config())
    try:
        episodes = learner.wait_for_episodes(2, 600)
        actor.send_signal(signal.SIGTERM)
        assert actor.wait(60) == 0, log.read_text()
    finally:
        actor.kill()
        learner.stop()

    recipe = cfg.algorithm
    sizes = policy_config(cfg.policy), recipe.noise, recipe.rollout.max_chunks
    spec = episode_spec(cfg.policy, *sizes, cfg.env)
    first, second = (decode_episode(transitions_to_bytes(episode), spec) for episode in episodes[:2])
    assert [first.task, second.task] == ["libero_spatial_1", "libero_object_1"]
    assert (first.version == 3).all()
    assert first.executed.tolist() == [CHUNK] * (LENGTH // CHUNK) + [LENGTH % CHUNK]
    assert (first.truncated, first.success) == (True, False)
    assert first.observations.images.shape[1:] == (2, 3, SIZE, SIZE)
    assert first.observations.proprio.shape[1] == 20
    assert len({tuple(tokens) for tokens in first.observations.tokens}) == 1
    assert first.observations.tokens[0].tolist() != second.observations.tokens[0].tolist()
