"""``env.type=libero`` is LeRobot's own, with more options, for learner, actor and evaluation alike."""

import draccus
import pytest
from draccus.utils import DraccusException
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig, LiberoEnv, LiberoPlusEnv
from lerobot.envs.utils import env_to_policy_features
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from tiny_libero import LENGTH, SIZE, libero_policy_config, write_libero_config

from bridge import plugin
from bridge.plugin.parsing import error_in_words
from bridge.settings.learner_config import episode_spec
from bridge.weights.export import policy_config

plugin.register()


def load(path):
    with draccus.config_type("json"):
        return draccus.parse(TrainRLServerPipelineConfig, str(path), args=[])


def test_it_is_lerobots_environment_with_its_defaults(tmp_path):
    config = load(write_libero_config(tmp_path)).env
    assert isinstance(config, LiberoEnv)
    assert config.type == "libero"
    ours, stock = EnvConfig.get_choice_class("libero")(), LiberoEnv()
    assert {name: getattr(ours, name) for name in vars(stock)} == vars(stock)
    assert ours.gym_kwargs == stock.gym_kwargs


def test_lerobots_own_class_keeps_its_name_beside_it():
    assert [env.type for env in (LiberoEnv(), LiberoPlusEnv())] == ["libero", "libero_plus"]
    encoded = draccus.encode(LiberoEnv(task="libero_goal"), EnvConfig)
    assert encoded["type"] == "libero"
    assert isinstance(draccus.decode(EnvConfig, encoded), EnvConfig.get_choice_class("libero"))
    with pytest.raises(ValueError, match="Cannot find choice name"):
        EnvConfig.get_choice_name(str)


def test_the_learner_expects_what_the_environment_emits_not_what_the_policy_announces(tmp_path):
    cfg = load(write_libero_config(tmp_path, task="libero_goal,libero_10", task_ids=[2]))
    cfg.validate()
    recipe = cfg.algorithm
    sizes = policy_config(cfg.policy), recipe.noise, recipe.rollout.max_chunks
    spec = episode_spec(cfg.policy, *sizes, cfg.env)
    assert spec.image_keys == ("observation.images.image", "observation.images.image2")
    assert spec.image_shape == (3, SIZE, SIZE)
    assert (spec.proprio_dim, spec.env_action_dim, spec.action_dim) == (20, 7, 20)
    assert spec.task_names == ("libero_goal_2", "libero_10_2")


def test_the_actor_gets_an_environment_it_can_make_and_the_config_stays(tmp_path):
    cfg = load(write_libero_config(tmp_path))
    cfg.validate()
    actors = cfg.env.for_actor()
    assert (actors.name, actors.fps) == ("gym_hil", -1)
    assert set(env_to_policy_features(actors)) == {
        "observation.images.image",
        "observation.images.image2",
        "observation.state",
        "observation.language.tokens",
        "observation.domain_id",
        "action",
    }
    assert (cfg.env.task, cfg.env.fps) == ("libero_object", 20)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"task": "libero_gaol"}, "libero_goal"),
        ({"task_ids": [10]}, "task_ids"),
        ({"episode_length": 991}, "990"),
        ({"episode_length": 400}, "max_chunks"),
        ({"obs_type": "pixels"}, "pixels_agent_pos"),
        ({"actor_id": -1}, "actor_id"),
        (
            {"camera_name_mapping": {"agentview_image": "a", "robot0_eye_in_hand_image": "b"}},
            "camera_name_mapping",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_their_name(tmp_path, env, message):
    cfg = load(write_libero_config(tmp_path, **env))
    with pytest.raises(ValueError, match=message):
        cfg.validate()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"task_sampling": "sorted"}, "task_sampling"),
        ({"init_state_rule": "first"}, "init_state_rule"),
        ({"max_cached_envs": 0}, "max_cached_envs"),
    ],
)
def test_a_rule_that_does_not_exist_is_refused_when_the_config_is_read(tmp_path, env, message):
    with pytest.raises(DraccusException) as caught:
        load(write_libero_config(tmp_path, **env))
    assert message in error_in_words(caught.value)


def test_a_policy_whose_actions_are_not_ee6d_is_refused():
    config = EnvConfig.get_choice_class("libero")(control_mode="absolute")
    features = {"observation.state": PolicyFeature(FeatureType.STATE, (20,))}
    with pytest.raises(ValueError, match="ee6d"):
        config.take_defaults_from(libero_policy_config(action_mode="auto", input_features=features), 0)


def test_relative_control_is_warned_about(caplog):
    config = EnvConfig.get_choice_class("libero")(episode_length=LENGTH)
    config.take_defaults_from(libero_policy_config(), 0)
    assert "env.control_mode=absolute" in caplog.text
