"""Promises of ``algorithm.type=pi_rl``, ``env.type=chunked_gym`` and of loading the plugin."""

import copy
import json
import pickle
import re
import subprocess
import sys

import draccus
import gymnasium as gym
import pytest
from draccus.utils import DraccusException
from fake_actor import parse
from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.rl.algorithms.configs import RLAlgorithmConfig
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from tiny import INSTRUCTION, build_tokenizer, tiny_policy_config, write_run_config

import bridge.plugin
from bridge.plugin.parsing import error_in_words

bridge.plugin.register()

from bridge.plugin.algorithm import PiRLAlgorithm  # noqa: E402
from bridge.plugin.gym_config import ChunkedGymConfig  # noqa: E402
from bridge.plugin.recipe_config import PiRLConfig  # noqa: E402


def load(path):
    with draccus.config_type("json"):
        return draccus.parse(TrainRLServerPipelineConfig, str(path), args=[])


@pytest.fixture
def config(tmp_path):
    cfg = load(write_run_config(tmp_path, 50051))
    cfg.validate()
    return cfg


def test_the_plugin_needs_no_jax():
    program = (
        "import sys; sys.modules['jax'] = None\n"
        "from lerobot.configs.parser import load_plugin; load_plugin('bridge.plugin')\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('jaxlib', 'flax', 'optax', 'orbax')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_the_environment_can_be_used_without_lerobot():
    program = (
        "import sys; sys.modules['lerobot'] = None; sys.modules['torch'] = None\n"
        "from bridge.plugin.panda import make_panda_pick_cube; make_panda_pick_cube().reset(seed=0)"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)


def test_one_json_makes_a_policy_a_recipe_and_an_environment_that_fit(config):
    assert type(config.algorithm) is PiRLConfig
    assert config.algorithm.noise.level == 0.1
    assert config.algorithm.policy_config is config.policy
    assert config.policy.actor_learner_config.learner_port == 50051
    assert config.policy.num_discrete_actions is None
    assert config.policy.domain_feature_key == "observation.domain_id"
    assert config.policy.input_features["observation.language.tokens"].shape == (10,)
    assert isinstance(config.env, ChunkedGymConfig)
    assert config.env.name == "gym_hil"
    assert (config.env.seed, config.env.tokenizer_name) == (7, config.policy.tokenizer_name)


def test_a_base_that_was_moved_still_has_its_tokenizer(tmp_path):
    """A resumed run's config names the tokenizer where it was, for the policy and the environment."""
    path = write_run_config(tmp_path, 50051)
    written = json.loads(path.read_text())
    written["env"]["tokenizer_name"] = written["policy"]["tokenizer_name"]
    (tmp_path / "tokenizer").rename(tmp_path / "gone")
    path.write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"tokenizer .*/tokenizer is not there"):
        parse(path)
    build_tokenizer(tmp_path / "base" / "tokenizer")
    written["policy"]["pretrained_path"] = str(tmp_path / "base")
    path.write_text(json.dumps(written))
    config = parse(path)
    assert config.policy.tokenizer_name == str(tmp_path / "base" / "tokenizer")
    assert config.env.tokenize([INSTRUCTION])


def test_the_actors_settings_survive_copies_and_are_not_saved(config):
    for clone in (copy.deepcopy(config.policy), pickle.loads(pickle.dumps(config.policy))):
        assert clone.online_steps == config.policy.online_steps
    saved = draccus.encode(config.policy, PreTrainedConfig)
    assert not {"online_steps", "concurrency", "_pirl_recipe"} & set(saved)
    assert "policy_config" not in draccus.encode(config.algorithm, RLAlgorithmConfig)


def test_a_saved_config_reads_back_the_same(config, tmp_path):
    config.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved" / "train_config.json")
    again.validate()
    assert again.algorithm == config.algorithm
    assert again.policy == config.policy
    again.env.task = config.env.task
    assert again.env == config.env


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ({"learner_port": 70000}, r"learner_port must be in \[1, 65535\]; got 70000"),
        ({"learner_port": 0}, r"learner_port must be in \[1, 65535\]; got 0"),
        ({"learner_host": "::1"}, r"learner_host must be a name or an address, IPv6 in brackets"),
    ],
)
def test_an_address_at_which_grpc_would_listen_elsewhere_is_refused(tmp_path, address, words):
    """Port 70000 is 4464 to it."""
    path = write_run_config(tmp_path, 50051, algorithm={"actor_learner_config": address})
    with pytest.raises(Exception) as error:
        load(path)
    assert re.search(words, error_in_words(error.value))


def test_an_unknown_key_is_refused(tmp_path):
    path = write_run_config(tmp_path, 50051, algorithm={"objective": {"clip_ration": 0.1}})
    with pytest.raises(Exception, match="clip_ration"):
        load(path)


def test_episodes_longer_than_the_learner_takes_are_refused_even_if_only_the_environment_knows(tmp_path):
    """Without them, short episodes would be all that is learned from, and those succeed more often."""

    class Plain(gym.Env):
        observation_space = action_space = gym.spaces.Box(-1, 1, (4,))

    gym.register("Bounded-v0", Plain, max_episode_steps=41)
    gym.register("Endless-v0", Plain)
    for steps, words in ((41, "steps make 6 chunks"), (None, "does not say when an episode ends")):
        env = {"gym_id": "Bounded-v0" if steps else "Endless-v0", "max_episode_steps": None}
        path = write_run_config(tmp_path, 50051, env=env, algorithm={"rollout": {"max_chunks": 5}})
        config = load(path)
        config.validate()
        with pytest.raises(ValueError, match=f"{words}.*env.max_episode_steps"):
            config.env.make()
    rollout = {"rollout": {"max_chunks": 5}}
    path = write_run_config(tmp_path, 50051, env={"max_episode_steps": 41}, algorithm=rollout)
    with pytest.raises(ValueError, match=r"6 chunks.*lower env.max_episode_steps"):
        load(path).validate()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"algorithm": {"noise": {"mode": "brownian"}}}, "noise.mode"),
        ({"algorithm": {"noise": {"level": 0.0}}}, "noise.level"),
        ({"algorithm": {"noise": {"level": 0.1, "gripper": "bernoulli"}}}, "noise.gripper.*action_mode"),
        ({"algorithm": {"concurrency": {"actor": "processes"}}}, "threads"),
        ({"env": {"domain_id": 9}}, "num_domains"),
        ({"env": {"image_keys": {"front": "observation.images.top"}}}, "observation.images.front"),
        ({"env": {"tokenizer_max_length": 3}}, "tokenizer_max_length"),
        ({"env": {"tokenizer_padding_side": "left"}}, "tokenizer_padding_side=left differs from policy"),
        (
            {"env": {"tokenizer_padding": "longest"}},
            "tokenizer_padding=longest differs from policy.pad_language",
        ),
        ({"env": {"max_episode_steps": -7}}, "env.max_episode_steps must be ≥ 1"),
        ({"algorithm": {"actor_learner_config": {"queue_get_timeout": -1.0}}}, "queue_get_timeout must be a"),
        ({"policy": {"n_action_steps": 0}}, "policy.n_action_steps must be ≥ 1"),
        ({"algorithm": {"max_actors": -5}}, "algorithm.max_actors must be ≥ 1"),
        ({"algorithm": {"online_steps": -5}}, "algorithm.online_steps must be ≥ 1"),
        ({"algorithm": {"optimizer": {"target_kl": 2.0}}}, "target_kl=2.0 is above watchdog.max_kl=1.0"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_their_name(tmp_path, overrides, message):
    path = write_run_config(tmp_path, 50051, **overrides)
    with pytest.raises((ValueError, DraccusException)) as error:
        load(path).validate()
    assert re.search(message, error_in_words(error.value))


def test_a_policy_that_is_no_flow_policy_is_refused_by_name(tmp_path):
    cfg = load(write_run_config(tmp_path, 50051, policy={"type": "xvla"}))
    with pytest.raises(ValueError, match=r"xvla.*gaussian_actor"):
        cfg.algorithm.policy_config = PreTrainedConfig.get_choice_class("gaussian_actor")()


@pytest.mark.parametrize("kind", ["VISUAL", "STATE", "ACTION"])
def test_normalisation_the_learner_could_not_follow_is_refused(kind):
    policy = tiny_policy_config()
    policy.normalization_mapping = policy.normalization_mapping | {kind: NormalizationMode.MEAN_STD}
    with pytest.raises(ValueError, match=kind):
        PiRLConfig().policy_config = policy


@pytest.mark.parametrize(
    ("stats", "words"),
    [
        ({"min": [0.0], "max": [1.0]}, "dataset_stats.action.mean"),
        ({"mean": [0.0, 0.0], "std": [1.0, -1.0]}, "action.std: a finite number above 0"),
        ({"mean": [0.0, float("nan")], "std": [1.0, 1.0]}, "action.mean: a finite number"),
        ({"mean": [0.0, 0.0], "std": [1.0]}, "statistics of 1 and 2 channels"),
    ],
)
def test_statistics_by_which_nothing_can_be_un_normalised_are_refused(stats, words):
    policy = tiny_policy_config()
    policy.normalization_mapping = policy.normalization_mapping | {"ACTION": NormalizationMode.MEAN_STD}
    with pytest.raises(ValueError, match=words):
        PiRLConfig(dataset_stats={"action": stats}).policy_config = policy


def test_a_policy_without_features_takes_the_environments(config):
    from lerobot.envs.utils import env_to_policy_features

    features = env_to_policy_features(config.env)
    assert set(features) == set(config.policy.input_features) | {"action"}


def test_sac_still_resolves_and_its_config_is_left_alone(tmp_path):
    from lerobot.rl.algorithms import factory
    from lerobot.rl.algorithms.sac.sac_algorithm import SACAlgorithm

    assert factory.get_algorithm_class("sac") is SACAlgorithm
    assert factory.get_algorithm_class("pi_rl") is PiRLAlgorithm
    with pytest.raises(ValueError, match="nonsense"):
        factory.get_algorithm_class("nonsense")
    policy = PreTrainedConfig.get_choice_class("gaussian_actor")(push_to_hub=False)
    cfg = load(write_run_config(tmp_path, 50051))
    cfg.algorithm, cfg.policy, cfg.env = None, policy, None
    cfg.validate()
    assert cfg.algorithm.type == "sac"
    assert not hasattr(policy, "_pirl_recipe")


def test_an_xvla_outside_the_recipe_keeps_its_stock_processors(tmp_path):
    from lerobot.policies.factory import make_pre_post_processors

    path = write_run_config(tmp_path, 50051)
    tokenizer = json.loads(path.read_text())["policy"]["tokenizer_name"]
    preprocessor, _ = make_pre_post_processors(tiny_policy_config(tokenizer_name=tokenizer))
    names = [type(step).__name__ for step in preprocessor.steps]
    assert "TokenizerProcessorStep" in names
    assert "XVLAAddDomainIdProcessorStep" in names
