"""Numbers of episodes: each is played by one actor, comes back if it has to, and counts once."""

import itertools
import threading

import pytest

from pirl_jax.rollout.assignments import ATTEMPTS, Assignments, Verdict
from pirl_jax.rollout.evaluation import Evaluation, Outcome, spread
from pirl_jax.rollout.seeds import TRAINING_SEEDS, episode_seed


def published(window=4, **settings):
    assignments = Assignments(window, 7, **settings)
    assignments.publish(1, settings.get("first", 0))
    return assignments


def drain(assignments, actor="a", most=100):
    given = []
    while len(given) < most and (assigned := assignments.next(actor, 0)) is not None:
        given.append(assigned)
    return given


def deliver(assignments, assigned):
    return assignments.deliver(assigned.number, assigned.seed)


def test_nothing_may_start_before_there_are_parameters():
    assert Assignments(4, 7).next("a", 0) is None


def test_two_actors_never_play_the_same_episode():
    assignments = published(window=6)
    given = [assignments.next(actor, 0) for actor in "ababab"]
    assert [assigned.number for assigned in given] == list(range(6))
    assert len({assigned.seed for assigned in given}) == 6
    assert len({assigned.noise_key for assigned in given}) == 6
    assert all(TRAINING_SEEDS <= assigned.seed < 2 * TRAINING_SEEDS for assigned in given)


def test_an_updates_worth_times_the_staleness_may_be_open_and_no_more():
    assignments = published(window=4)
    first = drain(assignments)
    assert len(first) == 4
    for assigned in first:
        deliver(assignments, assigned)
    assert assignments.next("a", 0) is None  # the learner is learning from them
    assignments.publish(2, 4)
    following = drain(assignments)
    assert [assigned.number for assigned in following] == [4, 5, 6, 7]
    assert {assigned.version for assigned in following} == {2}


def test_a_waiting_actor_gets_its_episode_when_the_next_version_is_out():
    assignments = published(window=1)
    deliver(assignments, assignments.next("a", 0))
    got = []
    waiting = threading.Thread(target=lambda: got.append(assignments.next("a", 30)))
    waiting.start()
    assignments.publish(2, 1)
    waiting.join(30)
    assert (got[0].number, got[0].version) == (1, 2)


def test_what_is_dropped_in_its_turn_makes_room_for_another():
    assignments = published(window=2)
    drain(assignments)
    assignments.drop(1)
    assert [assigned.number for assigned in drain(assignments)] == [2]


def test_what_a_vanished_actor_was_playing_is_handed_out_again_and_counts_once():
    assignments = published()
    lost, kept = assignments.next("gone", 0), assignments.next("b", 0)
    assert assignments.keep("gone", ()) == 1
    again = assignments.next("b", 0)
    assert (again.number, again.seed, again.noise_key) == (lost.number, lost.seed, lost.noise_key)
    assert deliver(assignments, lost) is Verdict.WANTED  # it was not gone after all, and is first
    assert deliver(assignments, again) is Verdict.DUPLICATE
    assert deliver(assignments, kept) is Verdict.WANTED


def test_an_episode_that_arrives_before_it_is_handed_out_again_is_not_played_twice():
    assignments = published(window=2)
    lost = assignments.next("gone", 0)
    assignments.keep("gone", ())
    assert deliver(assignments, lost) is Verdict.WANTED
    assert [assigned.number for assigned in drain(assignments)] == [1]


def test_an_assignment_that_never_reached_its_actor_is_given_again():
    assignments = published()
    held, lost = assignments.next("a", 0), assignments.next("a", 0)
    assert assignments.keep("a", [held.number]) == 1
    assert assignments.next("a", 0).number == lost.number


def test_what_nobody_was_given_is_not_wanted():
    assignments = published()
    assigned = assignments.next("a", 0)
    assert assignments.deliver(1, episode_seed(7, 1)) is Verdict.UNASSIGNED
    assert assignments.deliver(assigned.number, assigned.seed + 1) is Verdict.UNASSIGNED
    assert deliver(assignments, assigned) is Verdict.WANTED
    assert deliver(assignments, assigned) is Verdict.DUPLICATE


def test_an_episode_of_an_update_that_is_done_counts_no_more():
    assignments = published(window=1)
    assigned = assignments.next("a", 0)
    deliver(assignments, assigned)
    assignments.publish(2, 1)
    assert deliver(assignments, assigned) is Verdict.DUPLICATE


@pytest.mark.parametrize("unreadable", [True, False])
def test_an_episode_that_cannot_be_used_is_given_up_after_some_tries(unreadable):
    assignments = published(window=2)
    for attempt in range(ATTEMPTS):
        assert not assignments.is_given_up(0)
        assigned = assignments.next("a", 0)
        assert assigned.number == 0, attempt
        if unreadable:
            assignments.lose("a")
        else:
            deliver(assignments, assigned)
            assignments.reject(0)
    assert assignments.is_given_up(0)
    assert assignments.next("a", 0).number == 1
    assert deliver(assignments, assigned) is Verdict.DUPLICATE


def test_an_unreadable_message_is_of_the_oldest_episode_that_its_actor_plays():
    assignments = published()
    first, other, second = (assignments.next(actor, 0) for actor in "aba")
    assignments.lose("a")
    assert assignments.next("c", 0).number == first.number
    assert deliver(assignments, other) is deliver(assignments, second) is Verdict.WANTED


def test_what_cannot_be_read_is_not_blamed_on_a_number_that_was_handed_out_again():
    assignments = published()
    gone, mine = assignments.next("gone", 0), assignments.next("a", 0)
    assignments.keep("gone", ())
    again = assignments.next("a", 0)
    assert again.number == gone.number < mine.number
    assignments.lose("a")
    assert assignments.next("b", 0).number == mine.number


def test_a_group_shares_seed_task_and_place_and_its_episodes_go_to_different_actors():
    choices = iter([(3, 0), (1, None)])
    assignments = published(window=4, group_size=2, choose=lambda seed: next(choices))
    given = [assignments.next(actor, 0) for actor in "abab"]
    assert [(assigned.task, assigned.place) for assigned in given] == [(3, 0), (3, 0), (1, None), (1, None)]
    assert given[0].seed == given[1].seed != given[2].seed == given[3].seed
    assert len({assigned.noise_key for assigned in given}) == 4


def test_what_is_played_does_not_depend_on_who_asks_when():
    """A rule that looks at results is asked when numbers are admitted, between two updates."""
    results = []

    def choose(seed):
        return len(results), None

    assignments = published(window=2, choose=choose)
    results += ["of an episode", "that ended early"]
    assert [assignments.next("a", 0).task for _ in range(2)] == [0, 0]
    assignments.publish(2, 1)
    results += ["of another"]
    assert assignments.next("a", 0).task == 2
    assignments.drop(1)
    results += ["of a last"]
    assert assignments.next("a", 0).task == 3


def test_a_restarted_learner_goes_on_where_it_was():
    """Same seeds and keys as without the restart; and rules that count have counted what was before."""

    def counting():
        numbers = itertools.count()
        return lambda seed: (next(numbers), None)

    whole = published(window=8, group_size=2, choose=counting())
    restarted = published(window=4, group_size=2, choose=counting(), first=4)
    assert drain(restarted) == drain(whole)[4:]


def of_version(version, success=True):
    return Outcome("", success, float(success), version, version)


def test_an_evaluation_is_played_before_the_episodes_that_follow_its_push():
    """Against the whole order, written down: what was open, what came back, the evaluation, what is new."""
    assignments = published(window=4)
    before = [assignments.next("a", 0), assignments.next("b", 0)]  # under version 1
    evaluation = Evaluation(1, 2, 7, spread(3, 1))
    assignments.publish(2, 0, evaluation)
    assignments.keep("b", ())
    following = [assignments.next(actor, 0) for actor in "abcdef"]
    assert [each.number for each in before] == [0, 1]
    assert [each.number for each in following] == [1, *evaluation.numbers, 2, 3]
    assert [each.version for each in following] == [2] * 6
    assert [each.evaluates for each in following] == [False, True, True, True, False, False]
    assert assignments.next("a", 0) is None  # no more may be open than without one


def test_an_evaluation_changes_no_number_of_training_and_nothing_of_it_is_learned_from():
    def training(evaluated):
        choices = itertools.count()
        assignments = published(window=4, group_size=2, choose=lambda seed: (next(choices), None))
        given, standings = [], []
        for version in (2, 3):
            if evaluated:
                assignments.publish(
                    version - 1, 4 * (version - 2), Evaluation(version, version - 1, 7, spread(5, 2))
                )
            for assigned in drain(assignments):
                if assigned.evaluates:
                    outcome = of_version(assigned.version)
                    assert assignments.deliver(assigned.number, assigned.seed, outcome) is Verdict.WANTED
                else:
                    given.append(assigned)
                    deliver(assignments, assigned)
            standing = assignments.standing(4)
            standings.append((standing.arrived, standing.open, standing.playing))
            assignments.publish(version, 4 * (version - 1))
        return given, standings

    assert training(True) == training(False)


def test_an_evaluations_episode_is_settled_once_and_played_again_when_its_actor_dies():
    assignments = published()
    evaluation = Evaluation(0, 1, 7, spread(2, 1))
    assignments.publish(1, 0, evaluation)
    lost, kept = assignments.next("gone", 0), assignments.next("b", 0)
    assert assignments.keep("gone", ()) == 1
    again = assignments.next("b", 0)
    assert again == lost
    assert assignments.deliver(lost.number, lost.seed, of_version(1)) is Verdict.WANTED
    assert assignments.deliver(again.number, again.seed, of_version(1, False)) is Verdict.DUPLICATE
    assert assignments.deliver(kept.number, kept.seed + 1, of_version(1)) is Verdict.UNASSIGNED
    assert assignments.deliver(kept.number, kept.seed, of_version(1, False)) is Verdict.WANTED
    assert [outcome.success for outcome in evaluation.outcomes.values()] == [True, False]
    standing = assignments.standing(4)
    assert (standing.evaluation, standing.evaluated) == (2, 2)


def test_an_episode_of_an_earlier_evaluation_counts_in_none():
    assignments = published(window=1)
    earlier, later = (Evaluation(update, update + 1, 7, spread(1, 1)) for update in (0, 1))
    assignments.publish(1, 0, earlier)
    assigned = assignments.next("a", 0)
    assignments.deliver(assigned.number, assigned.seed, of_version(1))
    assignments.publish(2, 0, later)
    assert assignments.deliver(assigned.number, assigned.seed, of_version(2)) is Verdict.UNASSIGNED
    # Nor does one count that nobody was given.
    assert assignments.deliver(later.numbers[0], assigned.seed, of_version(2)) is Verdict.UNASSIGNED
    assert not later.outcomes


def test_parameters_that_are_older_than_what_is_evaluated_count_for_nothing():
    assignments = published(window=1)
    evaluation = Evaluation(1, 2, 7, spread(1, 1))
    assignments.publish(2, 0, evaluation)
    assigned = assignments.next("a", 0)
    old = Outcome("", True, 1.0, oldest=1, newest=2)
    assert assignments.deliver(assigned.number, assigned.seed, old) is Verdict.OLD_VERSION
    assert not evaluation.over
    assert assignments.next("b", 0) == assigned
    newer = Outcome("", True, 1.0, oldest=2, newest=3)
    assert assignments.deliver(assigned.number, assigned.seed, newer) is Verdict.WANTED
    assert evaluation.over


def test_an_evaluations_episode_that_cannot_be_read_is_given_up_after_some_tries():
    assignments = published(window=1)
    evaluation = Evaluation(0, 1, 7, spread(2, 1))
    assignments.publish(1, 0, evaluation)
    for _ in range(ATTEMPTS):
        assigned = assignments.next("a", 0)
        assert assigned.number == evaluation.numbers[0]
        assignments.lose("a")
    assert evaluation.outcomes == {evaluation.numbers[0]: None}
    other = assignments.next("a", 0)
    assignments.deliver(other.number, other.seed, of_version(1))
    assert evaluation.over
    assert assignments.next("a", 0).number == 0
