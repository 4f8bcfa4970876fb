"""Which episodes an evaluation has: the same each time, none of them training's."""

import pytest

from pirl_jax.rollout.evaluation import FIRST_NUMBER, Evaluation, Outcome, is_evaluation, spread
from pirl_jax.rollout.seeds import TRAINING_SEEDS, episode_seed, noise_key


@pytest.mark.parametrize(("episodes", "tasks"), [(50, 1), (7, 3), (12, 4), (2, 5), (40, 40)])
def test_episodes_are_spread_evenly_and_a_tasks_states_are_gone_through_in_turn(episodes, tasks):
    turns = spread(episodes, tasks)
    assert len(turns) == episodes
    assert turns == sorted(turns)  # a task's episodes together: its simulator is built once
    counts = [[place for task, place in turns if task == mine] for mine in range(tasks)]
    assert all(places == list(range(len(places))) for places in counts)
    assert max(map(len, counts)) - min(map(len, counts)) <= 1


def test_every_evaluation_of_a_run_has_the_same_episodes_under_other_numbers():
    first, later = (Evaluation(update, update + 1, 7, spread(6, 2)) for update in (0, 20))
    assert [first.draws(n) for n in first.numbers] == [later.draws(n) for n in later.numbers]
    assert not set(first.numbers) & set(later.numbers)
    assert all(map(is_evaluation, (*first.numbers, *later.numbers)))
    of_another_run = Evaluation(0, 1, 8, spread(6, 2))
    assert not {first.draws(n)[0] for n in first.numbers} & {
        of_another_run.draws(n)[0] for n in of_another_run.numbers
    }


def test_seeds_and_noise_are_those_of_no_training_episode():
    evaluation = Evaluation(3, 4, 7, spread(200, 1))
    seeds, keys, tasks, places = zip(*map(evaluation.draws, evaluation.numbers))
    assert len(set(seeds)) == len(set(keys)) == 200
    assert all(0 <= seed < TRAINING_SEEDS for seed in seeds)
    assert all(episode_seed(7, number) >= TRAINING_SEEDS for number in range(200))
    assert not set(keys) & {noise_key(7, number) for number in range(2000)}
    assert set(tasks) == {0}
    assert places == tuple(range(200))


def test_it_is_over_when_each_episode_has_ended_or_cannot_be_played():
    evaluation = Evaluation(0, 1, 7, spread(2, 1))
    assert not evaluation.over
    evaluation.outcomes[FIRST_NUMBER] = None
    assert not evaluation.over
    evaluation.outcomes[FIRST_NUMBER + 1] = Outcome("", True, 1.0, 1, 1)
    assert evaluation.over
