"""All tasks are there, one environment plays them, and an episode depends on nothing before it."""

import numpy as np
import pytest
import torch
from chunked import IMAGES, SUITES, chunked, random_chunk, row, task

from bridge.libero.suites import SUITES as KNOWN
from bridge.libero.suites import select_tasks


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.slow
def test_every_task_builds_and_steps(suite):
    tasks = select_tasks(suite, None)
    assert len(tasks) == 10
    env = chunked(*tasks, max_cached=1)
    rng = np.random.default_rng(0)
    first_images = []
    for number in range(len(tasks)):
        observation, _ = env.reset(seed=number)  # round robin
        for key in IMAGES.values():
            assert observation[key].float().std() > 10
        assert observation["observation.language.tokens"].tolist() == [[number, 1]]
        first_images.append(observation["observation.images.image"])
        observation, reward, terminated, truncated, info = env.step(row(random_chunk(rng, 2)))
        assert (reward, terminated, truncated) == (0.0, False, False)
        assert info["discrete_penalty"][4] == number
        assert torch.isfinite(observation["observation.state"]).all()
        assert len(env.env._built) == 1
    assert len({image.numpy().tobytes() for image in first_images}) == len(tasks)
    env.close()


def test_the_suites_are_as_libero_and_lerobot_know_them():
    from lerobot.envs.libero import TASK_SUITE_MAX_STEPS, _get_suite

    assert {name: suite.max_steps for name, suite in KNOWN.items()} == TASK_SUITE_MAX_STEPS
    assert {name: suite.num_tasks for name, suite in KNOWN.items()} == {
        name: len(_get_suite(name).tasks) for name in KNOWN
    }


def test_an_episode_is_a_function_of_its_seed_task_and_initial_state_alone():
    """Whatever was played before, other tasks in the same process included."""
    tasks = task("libero_goal", 0), task("libero_10", 2)
    env = chunked(*tasks)
    chunk = random_chunk(np.random.default_rng(1), 3)
    played = []
    for number in (0, 1, 0):
        np.random.seed(len(played))
        before = np.random.get_state()[1].copy()
        first, _ = env.reset(seed=3, options={"task": number, "init_state": 4})
        np.testing.assert_array_equal(np.random.get_state()[1], before)
        played.append((first, env.step(row(chunk))[0], env.env._current.env._env.get_sim_state()))
    for again, once in zip(played[2][:2], played[0][:2]):
        assert all(torch.equal(again[key], once[key]) for key in once)
    np.testing.assert_array_equal(played[2][2], played[0][2])
    env.close()


def test_an_episode_is_truncated_at_its_length():
    env = chunked(task("libero_object"), episode_length=3)
    env.reset(seed=0)
    chunk = random_chunk(np.random.default_rng(0), 2)
    assert env.step(row(chunk))[2:4] == (False, False)
    _, _, terminated, truncated, info = env.step(row(chunk))
    assert (terminated, truncated, info["discrete_penalty"][0]) == (False, True, 1)
    env.close()


@pytest.mark.parametrize(
    ("names", "ids", "message"),
    [("libero_gaol", None, "libero_goal"), ("", None, "env.task"), ("libero_goal", [10], r"\[0, 10\)")],
)
def test_what_does_not_exist_is_refused_by_name(names, ids, message):
    with pytest.raises(ValueError, match=message):
        select_tasks(names, ids)


def test_several_suites_give_all_their_chosen_tasks():
    labels = [chosen.label for chosen in select_tasks("libero_goal, libero_10", [4, 1])]
    assert labels == ["libero_goal_1", "libero_goal_4", "libero_10_1", "libero_10_4"]
