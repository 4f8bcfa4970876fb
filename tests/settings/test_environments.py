"""Settings of environments that follow from others, or that another leaves without effect."""

import json

import draccus
import pytest
from lerobot.envs.configs import EnvConfig
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from lerobot.robots.so_follower import SO100FollowerConfig
from tiny import tiny_policy_config, write_run_config

import bridge.plugin

bridge.plugin.register()

from bridge.plugin import transport  # noqa: E402
from bridge.plugin.gym_config import ChunkedGymConfig  # noqa: E402
from bridge.plugin.libero_config import LiberoConfig  # noqa: E402
from bridge.plugin.recipe_config import PiRLConfig  # noqa: E402


def test_a_gym_is_named_by_its_id_alone():
    with pytest.raises(ValueError, match=r"env\.task=PickCube is not read here: env\.gym_id says"):
        ChunkedGymConfig(task="PickCube")
    assert ChunkedGymConfig(task="chunked-7-v0").task != "PickCube"  # as a saved config has it


def test_a_simulation_has_no_robot():
    with pytest.raises(ValueError, match=r"env\.robot and env\.teleop are not read here"):
        ChunkedGymConfig(robot=SO100FollowerConfig(port="/dev/null"))


def test_features_that_are_not_those_of_the_other_settings_are_named(caplog):
    saved = ChunkedGymConfig().features
    ChunkedGymConfig(features=saved)
    assert "env.features" not in caplog.text
    ChunkedGymConfig(features={"observation.mine": saved["action"]})
    assert "env.features has no effect here" in caplog.text


def test_a_rule_for_initial_states_needs_initial_states():
    with pytest.raises(
        ValueError, match=r"init_state_rule=sequential would do nothing: with env.init_states=false"
    ):
        LiberoConfig(init_state_rule="sequential", init_states=False)


@pytest.mark.parametrize(("tasks", "told"), [([0], True), ([0, 1], False)])
def test_a_rule_for_tasks_needs_several(tasks, told, caplog):
    policy = XVLAConfig(device="cpu", action_mode="ee6d")
    env = LiberoConfig(task="libero_goal", task_ids=tasks, task_sampling="weighted", control_mode="absolute")
    env.take_defaults_from(policy, 0)
    assert ("env.task_sampling=weighted has no effect on one task" in caplog.text) == told


@pytest.mark.parametrize(("key", "told"), [(None, False), ("observation.robot", True)])
def test_the_column_of_domains_is_the_environments(key, told, caplog):
    policy = tiny_policy_config(domain_feature_key=key)
    recipe = PiRLConfig()
    for _ in range(2):
        recipe.policy_config = policy
    assert caplog.text.count("policy.domain_feature_key=observation.robot has no effect") == told


OURS = {"chunked_gym", "libero"}


@pytest.mark.parametrize("actor", [False, True])
@pytest.mark.parametrize("kind", sorted(EnvConfig.get_known_choices().keys() - OURS))
def test_an_environment_that_takes_no_chunks_is_refused_by_learner_and_actor(
    tmp_path, monkeypatch, kind, actor
):
    """All that LeRobot offers but LIBERO: its actor would make a robot of them, or hand them packed rows."""
    monkeypatch.setattr(transport, "is_actor", lambda: actor)
    config = write_run_config(tmp_path, 1)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"env": {"type": kind}}))
    with draccus.config_type("json"):
        cfg = draccus.parse(TrainRLServerPipelineConfig, str(config), args=[])
    with pytest.raises(SystemExit if actor else ValueError) as refused:
        cfg.validate()
    line = str(refused.value).removeprefix("error: ")
    assert line.startswith(f"env.type={kind} cannot be played under algorithm.type=pi_rl")
    assert "\n" not in line


def test_an_actor_without_an_environment_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "is_actor", lambda: True)
    config = write_run_config(tmp_path, 1, env=None)
    with draccus.config_type("json"):
        cfg = draccus.parse(TrainRLServerPipelineConfig, str(config), args=[])
    with pytest.raises(SystemExit, match=r"^error: env.type=None cannot be played"):
        cfg.validate()
