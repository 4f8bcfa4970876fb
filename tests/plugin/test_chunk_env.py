"""Promises of the chunk-level environment adaptor, on a made-up inner environment."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from bridge.plugin.chunk_env import ChunkEnv
from bridge.wire.record import Record, RecordError, pack
from pirl_jax.rollout.assignments import Assignment
from pirl_jax.rollout.evaluation import FIRST_NUMBER


class Plain(gym.Env):
    """Counts its steps, ends when told to and draws an image at each."""

    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, terminate_at=None, truncate_at=None):
        self.terminate_at, self.truncate_at = terminate_at, truncate_at
        self.actions, self.drawn, self.seeds = [], 0, []

    def observe(self):
        self.drawn += 1
        image = np.full((4, 6, 3), len(self.actions), np.uint8)
        return {"pixels": {"cam": image}, "agent_pos": np.asarray([len(self.actions), 0.5])}

    def reset(self, *, seed=None, options=None):
        self.actions = []
        self.seeds.append(seed)
        return self._observation(), {}

    def step(self, action):
        self.actions.append(action)
        n = len(self.actions)
        terminated = np.bool_(n == self.terminate_at)
        return (
            self._observation(),
            np.bool_(True),
            terminated,
            n == self.truncate_at,
            {"is_success": terminated},
        )

    def _observation(self):
        return self.observe()


class Counter(Plain):
    """Draws only when rendering is on."""

    rendering = True

    def set_rendering(self, enabled):
        self.rendering = enabled

    def _observation(self):
        return self.observe() if self.rendering else {"agent_pos": np.zeros(2)}


def adapt(inner, **settings):
    defaults = {
        "image_keys": {"cam": "observation.images.cam"},
        "image_shapes": {"observation.images.cam": (3, 4, 6)},
        "state_dim": 2,
        "tokens": [[0, 7, 2, 1]],
        "domain_id": 3,
    }
    return ChunkEnv(inner, **(defaults | settings))


def row(actions):
    actions = np.asarray(actions, np.float32)
    latents = np.zeros((3, len(actions), 2), np.float32)
    return pack(Record(actions, latents, np.zeros(len(actions), np.float32), denoise_step=1, version=1))


def test_observations_are_batched_tensors_under_their_final_keys():
    observation, _ = adapt(Counter()).reset()
    kinds = {key: (tuple(value.shape), value.dtype) for key, value in observation.items()}
    assert kinds == {
        "observation.images.cam": ((1, 3, 4, 6), torch.uint8),
        "observation.state": ((1, 2), torch.float32),
        "observation.language.tokens": ((1, 4), torch.int64),
        "observation.domain_id": ((1,), torch.int64),
    }
    assert observation["observation.domain_id"].item() == 3


def test_a_whole_chunk_is_one_step_with_one_image_and_the_summed_reward():
    inner = Counter()
    env = adapt(inner)
    env.reset()
    observation, reward, terminated, truncated, info = env.step(row([[0, 0], [0.5, 0], [3, -3]]))
    assert (reward, terminated, truncated) == (3.0, False, False)
    assert type(reward) is float
    np.testing.assert_array_equal(inner.actions[-1], [1, -1])
    assert inner.drawn == 2  # the reset's and the chunk's last
    assert observation["observation.images.cam"].unique().tolist() == [3]
    assert info["discrete_penalty"][0] == 3
    assert info["discrete_penalty"][6:] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("end", ["terminate_at", "truncate_at"])
def test_a_chunk_stops_where_the_episode_ends_and_shows_that_moment(end):
    inner = Counter(**{end: 2})
    env = adapt(inner)
    env.reset()
    observation, reward, terminated, truncated, info = env.step(row(np.zeros((4, 2))))
    assert len(inner.actions) == 2
    assert (terminated, truncated) == (end == "terminate_at", end == "truncate_at")
    assert type(terminated) is bool
    assert reward == 2.0
    assert observation["observation.images.cam"].unique().tolist() == [2]
    assert info["discrete_penalty"][:2] == [2.0, float(end == "terminate_at")]


def test_an_environment_that_always_draws_works_too():
    inner = Plain(terminate_at=2)
    env = adapt(inner)
    env.reset()
    observation, _, terminated, *_ = env.step(row(np.zeros((4, 2))))
    assert terminated
    assert inner.drawn == 3
    assert observation["observation.images.cam"].unique().tolist() == [2]


def test_termination_wins_over_a_limit_reached_at_the_same_step():
    env = adapt(Counter(terminate_at=1, truncate_at=1))
    env.reset()
    assert env.step(row([[0, 0]]))[2:4] == (True, False)


def recorded_seeds(episodes, **settings):
    inner = Counter()
    env = adapt(inner, **settings)
    recorded = []
    for _ in range(episodes):
        env.reset()
        low, high = env.step(row([[0, 0]]))[4]["discrete_penalty"][2:4]
        recorded.append(int(low) + (int(high) << 16))
    assert recorded == inner.seeds
    return recorded


def test_without_a_learner_seeds_are_a_fixed_function_of_the_runs_and_are_recorded():
    assert recorded_seeds(3, seed=1) == recorded_seeds(3, seed=1)
    assert len({*recorded_seeds(3, seed=1), *recorded_seeds(3, seed=2)}) == 6


def test_what_is_assigned_is_played():
    assigned = iter([Assignment(4, 77, 1, 0, None, 1), Assignment(9, 5, 2, 0, None, 1)])
    assert recorded_seeds(2, assign=lambda: next(assigned)) == [77, 5]


class Kitchen(Counter):
    """Has tasks."""

    def assign(self, task, place, evaluates):
        self.assigned, self.evaluates = (task, place), evaluates

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed, options=options)
        return observation, {"task": self.assigned[0], "init_state": self.assigned[1]}


@pytest.mark.parametrize(("number", "evaluates"), [(4, False), (FIRST_NUMBER + 4, True)])
def test_an_environment_of_several_tasks_is_told_which(number, evaluates):
    kitchen = Kitchen()
    env = adapt(kitchen, assign=lambda: Assignment(number, 77, 1, 2, 30, 1), tokens=[[0], [1], [2]])
    observation, _ = env.reset()
    assert kitchen.evaluates == evaluates
    assert observation["observation.language.tokens"].tolist() == [[2]]
    assert env.step(row([[0, 0]]))[4]["discrete_penalty"][4:6] == [2.0, 30.0]


def test_a_changed_row_is_refused():
    env = adapt(Counter())
    env.reset()
    broken = row([[0, 0]])
    broken[-1] = 1
    with pytest.raises(RecordError, match="checksum"):
        env.step(broken)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_keys": {"wrist": "observation.images.cam"}}, "no image 'wrist'"),
        ({"image_shapes": {"observation.images.cam": (3, 8, 8)}}, "configuration says"),
        ({"state_dim": 9}, "state_dim"),
    ],
)
def test_an_environment_unlike_its_description_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        adapt(Counter(), **settings).reset()


def test_a_chunk_of_another_shape_than_configured_is_refused():
    env = adapt(Counter(), action_dims=(4, 2))
    env.reset()
    with pytest.raises(ValueError, match="n_action_steps"):
        env.step(row(np.zeros((3, 2))))
