"""The actor's way through LIBERO is lerobot-eval's: same observations, actions and simulator states."""

from types import SimpleNamespace

import draccus
import numpy as np
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.configs import LiberoEnv
from lerobot.envs.factory import make_env, make_env_pre_post_processors
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.policies.xvla import XVLAPolicy
from lerobot.rl.algorithms.factory import make_algorithm
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from lerobot.scripts.lerobot_eval import rollout
from tiny_libero import CHUNK, LENGTH, SIZE, write_libero_config

from bridge import plugin
from bridge.weights.export import export_pretrained, policy_config
from bridge.weights.state_dict import params_from_state
from bridge.wire.record import unpack
from pirl_jax.rollout.assignments import Assignment
from pirl_jax.rollout.evaluation import FIRST_NUMBER

SEED, NOISE_SEED = 11, 4
TASK, INIT_STATE = 6, 13


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    plugin.register()
    path = write_libero_config(tmp_path_factory.mktemp("run"), task="libero_object,libero_goal")
    with draccus.config_type("json"):
        cfg = draccus.parse(TrainRLServerPipelineConfig, str(path), args=[])
    cfg.validate()
    return cfg


@pytest.fixture(scope="module")
def export(cfg, tmp_path_factory):
    """A random policy that moves the arm, saved as the learner saves it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("export")
    state = XVLAPolicy(cfg.policy).state_dict()
    export_pretrained(params_from_state(state, policy_config(cfg.policy)), cfg, folder)
    return folder


def spy_on(policy):
    """Record what the policy's network is given."""
    seen, build = [], policy._build_model_inputs

    def record(batch):
        inputs = build(batch)
        seen.append({key: value.clone() for key, value in inputs.items()})
        return inputs

    policy._build_model_inputs = record
    return seen


def evaluate(export, task_id):
    """As lerobot_eval.py does, with the classes that LeRobot has without the plugin."""
    config = PreTrainedConfig.from_pretrained(export)
    env_config = LiberoEnv(
        task="libero_object",
        task_ids=[task_id],
        control_mode="absolute",
        observation_height=SIZE,
        observation_width=SIZE,
        episode_length=LENGTH,
    )
    env = make_env(env_config, n_envs=1)["libero_object"][task_id]
    env.envs[0].unwrapped.init_state_id = INIT_STATE
    policy = make_policy(cfg=config, env_cfg=env_config)
    policy.load_state_dict(XVLAPolicy.from_pretrained(export).state_dict())
    policy.eval()
    pre, post = make_pre_post_processors(policy_cfg=config, pretrained_path=str(export))
    env_pre, env_post = make_env_pre_post_processors(env_config, config)
    seen, states = spy_on(policy), []
    torch.manual_seed(NOISE_SEED)
    result = rollout(
        env,
        policy,
        env_pre,
        env_post,
        pre,
        post,
        seeds=[SEED],
        render_callback=lambda vector: states.append(vector.envs[0].unwrapped._env.get_sim_state()),
    )
    env.close()
    return seen, states, result["action"][0].numpy()


def act(cfg, export, task_id):
    """As LeRobot's actor does in an episode of a run's evaluation, of the same seed, state and noise."""
    env_config = cfg.env.for_actor()
    policy = make_policy(cfg=cfg.policy, env_cfg=env_config)
    policy.load_state_dict(XVLAPolicy.from_pretrained(export).state_dict())
    policy.eval()
    algorithm = make_algorithm(cfg=cfg.algorithm, policy=policy)
    assigned = Assignment(FIRST_NUMBER, SEED, NOISE_SEED, task_id, INIT_STATE, version=0)
    episodes = SimpleNamespace(current=assigned, run=0, say_alive=lambda: None)
    algorithm.acting.channel = SimpleNamespace(episodes=episodes)
    pre, post = make_pre_post_processors(policy_cfg=cfg.policy, dataset_stats=None)
    env = cfg.env.make()
    env._assign = lambda: assigned
    seen, actions = spy_on(policy), []
    observation, _ = env.reset()
    simulator = env.env._current.env._env
    states, over = [simulator.get_sim_state()], False
    while not over:
        kept = {key: value for key, value in observation.items() if key in cfg.policy.input_features}
        row = post.process_action(policy.select_action(batch=pre.process_observation(kept)))
        observation, _, terminated, over, info = env.step(row[0].numpy())
        assert not terminated
        assert info["discrete_penalty"][4:6] == [task_id, INIT_STATE]
        record = unpack(row.numpy())
        assert record.denoise_step == 0
        actions.append(record.env_action[: int(info["discrete_penalty"][0])])
        states.append(simulator.get_sim_state())
    env.close()
    return seen, states, np.concatenate(actions)


def test_the_actor_sees_does_and_causes_what_lerobot_eval_does(cfg, export):
    expected_inputs, expected_states, expected_actions = evaluate(export, TASK)
    inputs, states, actions = act(cfg, export, TASK)
    assert len(inputs) == len(expected_inputs) == -(-LENGTH // CHUNK)
    for ours, theirs in zip(inputs, expected_inputs):
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            assert torch.equal(ours[key], value), key
    np.testing.assert_array_equal(actions, expected_actions)
    assert np.ptp(actions[:, :6], axis=0).min() > 0.01, "the arm is to move and turn"
    ends = [*range(0, LENGTH, CHUNK), LENGTH]
    for ours, end in zip(states, ends, strict=True):
        np.testing.assert_array_equal(ours, expected_states[end])
