"""Which task and initial state come next is a rule that can be replayed."""

from collections import Counter

import pytest

from bridge.libero.schedule import INIT_STATE_RULES, TASK_SAMPLING, Schedule, init_state_of
from pirl_jax.rollout.seeds import episode_seed

STATES = 50


def play(schedule, episodes, solved=()):
    chosen = []
    for number in range(episodes):
        seed = episode_seed(3, number)
        task, place = schedule.choose(seed)
        chosen.append((task, init_state_of(seed, place, range(STATES))))
        schedule.report(task, task in solved)
    return chosen


@pytest.mark.parametrize("task_sampling", TASK_SAMPLING)
@pytest.mark.parametrize("init_state_rule", INIT_STATE_RULES)
def test_the_same_run_plays_the_same_episodes(task_sampling, init_state_rule):
    runs = [play(Schedule(10, task_sampling, init_state_rule), 40) for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 20


def test_round_robin_visits_every_task_equally_and_every_state_in_turn():
    chosen = play(Schedule(4, "round_robin", "sequential"), 4 * STATES)
    assert len(set(chosen)) == 4 * STATES
    assert [task for task, _ in chosen[:5]] == [0, 1, 2, 3, 0]


def test_uniform_sampling_visits_every_task_about_equally():
    counts = Counter(task for task, _ in play(Schedule(5), 2000))
    assert min(counts.values()) > 330
    assert max(counts.values()) < 470


def test_weighted_sampling_prefers_what_is_not_solved_and_keeps_practising_the_rest():
    counts = Counter(task for task, _ in play(Schedule(5, "weighted"), 2000, solved={0, 1, 2, 3}))
    assert counts[4] > 1300
    assert min(counts.values()) > 40


@pytest.mark.parametrize(
    ("rules", "message"), [(("sorted", "random"), "task_sampling"), (("uniform", "first"), "init_state_rule")]
)
def test_an_unknown_rule_is_refused_by_name(rules, message):
    with pytest.raises(ValueError, match=message):
        Schedule(3, *rules)
