"""Settings of environments that follow from others, or that another leaves without effect."""

import pytest
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from lerobot.robots.so_follower import SO100FollowerConfig
from tiny import tiny_policy_config

import bridge.plugin

bridge.plugin.register()

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
