"""An update's worth of episodes: by number, whoever sends them and whenever they come."""

import dataclasses
import itertools
import threading
import time
from collections import Counter

import numpy as np
import pytest
from quick import quick
from simulated_actors import SimulatedActors
from toy_run import episode

from pirl_jax.recipe import RolloutConfig
from pirl_jax.rollout.assignments import ATTEMPTS, Assignments
from pirl_jax.rollout.behaviour import Behaviour, Behaviours
from pirl_jax.rollout.collect import Collector, DisagreementError
from pirl_jax.rollout.groups import Groups
from pirl_jax.training.interval import wilson

SIZE = 4


class Scored:
    """What the collector looks at."""

    def __init__(self, number, success=False, gap=0.0, finite=True):
        self.number, self.success, self.task = number, success, ""
        self.old_log_prob = np.array([0.0 if finite else np.nan])
        self.log_prob_gap, self.gap_tolerance = gap, 0.01
        self.reward = np.array([float(success)])
        self.stale = np.zeros(0, bool)

    def without(self, stale):
        self.stale = stale
        return self


class Learner:
    """A collector, and actors whose episodes arrive in a given order."""

    def __init__(self, max_staleness=0, group_size=None, scored=Scored, size=SIZE, together=1):
        config = RolloutConfig(episodes_per_update=size, max_staleness=max_staleness)
        self.assignments = Assignments(size * (max_staleness + 1), 0, group_size or 1)
        self.behaviours = Behaviours(max_staleness)
        self.queue, self.later = [], []
        self.stop = threading.Event()
        self.scorings = Counter()
        self.packs = []
        self.reported = []
        groups = Groups(group_size, 1e-3) if group_size else None
        self.collector = Collector(
            config,
            groups,
            self._receive,
            lambda items, behaviours: self._score(scored, items),
            together,
            self.behaviours,
            self.assignments,
            0,
            self.stop,
            lambda task, success: self.reported.append(success),
        )
        self.version = 0
        self.push()

    def _score(self, scored, items):
        self.scorings.update(item.number for item in items)
        self.packs.append([item.number for item in items])
        return [scored(item.number) for item in items]

    def _receive(self, timeout):
        """What has arrived; else, to who waits, what happens next, and in the end nothing more."""
        if not timeout and not self.queue:
            return None
        if not self.queue and self.later:
            self.later.pop(0)()
        elif not self.queue:
            self.stop.set()
        return self.queue.pop(0) if self.queue else None

    def replay(self, *numbers):
        """The next episodes that may start are these; they are played."""
        again = self.start(len(numbers))
        assert [each.number for each in again] == list(numbers)
        self.arrive(*again)

    def push(self):
        self.version += 1
        behaviour = Behaviour({}, self.version - 1, 0.1)
        self.behaviours.add(self.version, behaviour, behaviour)
        self.assignments.publish(self.version, self.collector.position)

    def start(self, count=1):
        return [self.assignments.next("a", 0) for _ in range(count)]

    def arrive(self, *assigned):
        for each in assigned:
            self.assignments.deliver(each.number, each.seed)
            item = episode(0, 1, terminated=True, version=each.version)
            self.queue.append(dataclasses.replace(item, number=each.number))

    def collect(self):
        collected, dropped = self.collector.collect()
        return [item.episode.number for item in collected], +dropped


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_a_batch_is_in_the_order_of_the_numbers_however_it_arrives(order):
    learner = Learner()
    given = learner.start(4)
    learner.arrive(*(given[i] for i in order))
    assert learner.collect() == ([0, 1, 2, 3], Counter())


def test_what_arrives_early_waits_for_its_turn_and_is_scored_in_it():
    """Actors are an update ahead; a slow episode of the first update holds it up, and is part of it."""
    learner = Learner(max_staleness=1)
    given = learner.start(8)
    learner.arrive(*given[4:], *given[1:4])

    def slow():
        assert set(learner.scorings) == {1, 2, 3}
        assert learner.collector.waiting == 7
        learner.arrive(given[0])

    learner.later = [slow]
    assert learner.collect() == ([0, 1, 2, 3], Counter())
    learner.push()
    assert learner.collect() == ([4, 5, 6, 7], Counter())
    assert max(learner.scorings.values()) == 1


def test_what_waits_is_scored_together_up_to_a_blocks_worth_of_observations():
    """Each has two: a chunk's and the final one. Whoever comes later is scored when it comes."""
    learner = Learner(size=6, together=4)
    given = learner.start(6)
    learner.arrive(*(given[i] for i in (4, 1, 0, 3, 2)))
    learner.later = [lambda: learner.arrive(given[5])]
    assert learner.collect() == (list(range(6)), Counter())
    assert learner.packs == [[0, 1], [2, 3], [4], [5]]


def test_episodes_of_two_versions_are_scored_together_under_both():
    learner, seen = Learner(max_staleness=1, size=2, together=100), []
    given = learner.start(2)
    learner.push()
    score = learner.collector._score
    learner.collector._score = lambda items, played: (seen.append(sorted(played)), score(items, played))[1]
    newer = dataclasses.replace(episode(0, 1, terminated=True, version=2), number=given[1].number)
    learner.arrive(given[0])
    learner.queue.append(newer)
    learner.assignments.deliver(given[1].number, given[1].seed)
    assert learner.collect() == ([0, 1], Counter())
    assert seen == [[1, 2]]


def succeeds(number):
    return np.random.default_rng([5, number]).random() < 0.5


SELECTING = quick(
    itertools.product((0, 1, 2), (1, 4, 16), (10.0, 0.1)),
    *[(0, 16, 10.0), (1, 4, 0.1), (2, 1, 10.0), (2, 16, 0.1)],
)


@pytest.mark.parametrize(("max_staleness", "actors", "failures_last"), SELECTING)
def test_neither_length_nor_success_selects_what_is_learned_from(max_staleness, actors, failures_last):
    """Half of all episodes succeed; those that fail take ten times as long, or a tenth."""
    learner = Learner(max_staleness, scored=lambda number: Scored(number, succeeds(number)), size=8)
    playing = SimulatedActors(
        learner.assignments, actors, lambda number: 1.0 if succeeds(number) else failures_last
    )
    learner.collector._receive = playing.receive
    outcomes, oldest = [], 0
    for update in range(100):
        collected, dropped = learner.collector.collect()
        assert not +dropped
        oldest = max(oldest, *(update - item.update.min() for item in collected))
        outcomes += [item.episode.success for item in collected]
        playing.learner_updates(3.0)
        learner.push()
    low, high = wilson(sum(outcomes), len(outcomes))
    assert low < 0.5 < high
    # Of every number once, in order, whatever came first.
    assert outcomes == [succeeds(number) for number in range(800)]
    assert oldest <= max_staleness
    assert actors == 1 or oldest == max_staleness


@pytest.mark.parametrize(("max_staleness", "actors", "failures_last"), SELECTING)
def test_nothing_is_selected_where_the_version_changes_within_episodes(max_staleness, actors, failures_last):
    """A server acts: each chunk is of the newest version. A failure has ten chunks, a success four."""
    learner = Learner(max_staleness, scored=lambda number: Scored(number, succeeds(number)), size=8)
    playing = SimulatedActors(
        learner.assignments,
        actors,
        lambda number: 1.0 if succeeds(number) else failures_last,
        lambda number: 4 if succeeds(number) else 10,
    )
    learner.collector._receive = playing.receive
    outcomes, oldest, changed = [], 0, 0
    for update in range(100):
        collected, dropped = learner.collector.collect()
        assert not +dropped
        ages = [update - item.update for item in collected]
        assert min(age.min() for age in ages) >= 0
        oldest = max(oldest, *(age.max() for age in ages))
        changed += sum(age.max() > age.min() for age in ages)
        outcomes += [item.episode.success for item in collected]
        playing.learner_updates(0.4)
        learner.push()
        playing.served.append(playing.now)
    assert outcomes == [succeeds(number) for number in range(800)]
    low, high = wilson(sum(outcomes), len(outcomes))
    assert low < 0.5 < high
    # What is admitted at its start is learned from in time, so no chunk is too old to count.
    assert oldest <= max_staleness
    assert (changed > 0) == (max_staleness > 0)


def test_a_wrong_episode_is_played_again_and_counted():
    bad = {2: {"gap": 0.2}, 1: {"finite": False}}
    learner = Learner(scored=lambda number: Scored(number, **bad.pop(number, {})))
    learner.arrive(*learner.start(4))
    learner.later = [lambda: learner.replay(1, 2)]
    assert learner.collect() == ([0, 1, 2, 3], Counter(not_finite=1, gap=1))


def test_a_small_gap_is_said_and_kept(caplog):
    learner = Learner(scored=lambda number: Scored(number, gap=0.05))
    learner.arrive(*learner.start(4))
    assert learner.collect()[0] == [0, 1, 2, 3]
    assert "differs from the learner's by 0.05 nats" in caplog.text


def test_a_number_that_is_always_wrong_is_given_up_and_another_stands_in():
    learner = Learner(scored=lambda number: Scored(number, gap=1.0 if number == 1 else 0.0), size=16)
    learner.arrive(*learner.start(16))
    learner.later = [lambda: learner.replay(1)] * (ATTEMPTS - 1) + [lambda: learner.replay(16)]
    assert learner.collect() == ([0, *range(2, 17)], Counter(gap=ATTEMPTS, given_up=1))
    assert learner.collector.position == 17


def test_when_most_are_wrong_the_run_ends_with_words():
    learner = Learner(scored=lambda number: Scored(number, gap=370.0))
    learner.arrive(*learner.start(4))
    with pytest.raises(DisagreementError, match=r"4 episodes were rejected \(gap: 4\) while 0 could be used"):
        learner.collect()


def test_when_nothing_that_arrives_can_be_read_the_run_ends_with_words():
    """Else numbers would be played and given up for ever."""
    learner = Learner()

    def lose():
        learner.start()
        learner.assignments.lose("a")

    learner.later = [lose] * (SIZE * ATTEMPTS)
    with pytest.raises(DisagreementError, match=r"4 episodes were rejected \(unreadable: 4\) while 0"):
        learner.collect()


def test_groups_are_judged_whole_and_in_order():
    outcomes = {0: True, 1: True, 2: True, 3: False, 4: False, 5: False, 6: False, 7: True}
    learner = Learner(group_size=2, scored=lambda number: Scored(number, outcomes[number]))
    first = learner.start(4)
    learner.arrive(first[3], first[1], first[2])
    learner.later = [
        lambda: learner.arrive(first[0]),
        lambda: learner.replay(4, 5),
        lambda: learner.replay(6, 7),
    ]
    assert learner.collect() == ([2, 3, 6, 7], Counter(uniform_group=4))
    assert learner.reported == list(outcomes.values())


def test_a_group_of_which_one_cannot_be_played_is_left_out():
    learner = Learner(
        group_size=4, size=8, scored=lambda number: Scored(number, number % 2 == 0, gap=float(number == 2))
    )
    learner.arrive(*learner.start(8))
    learner.later = [lambda: learner.replay(2)] * (ATTEMPTS - 1) + [lambda: learner.replay(8, 9, 10, 11)]
    assert learner.collect() == ([*range(4, 12)], Counter(gap=ATTEMPTS, given_up=1, broken_group=3))


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_arrives_during_an_update_is_scored_meanwhile_once_and_no_further_than_the_next():
    learner = Learner(max_staleness=1)
    first = learner.start(2 * SIZE)
    learner.arrive(*first[:SIZE])
    learner.collect()
    with learner.collector.meanwhile():
        learner.arrive(*reversed(first[SIZE:]))
        wait_until(lambda: sum(learner.scorings.values()) == 2 * SIZE)
        learner.push()
        learner.arrive(*learner.start(1))  # of the update after the next
        wait_until(lambda: learner.collector.waiting == SIZE + 1)
    learner.stop.clear()  # nothing to receive is no end here
    assert learner.collect() == (list(range(SIZE, 2 * SIZE)), Counter())
    assert learner.scorings == Counter(range(2 * SIZE))
    assert learner.collector.scoring_s > 0


def test_what_is_judged_wrong_though_scored_ahead_is_played_again():
    learner = Learner(
        max_staleness=1, scored=lambda number: Scored(number, finite=learner.scorings[number] > 1)
    )
    learner.arrive(*learner.start(1))
    with learner.collector.meanwhile():
        wait_until(lambda: learner.scorings[0] == 1)
    learner.stop.clear()
    learner.later.append(lambda: learner.replay(0))
    collected, dropped = learner.collect()
    assert (collected, dropped) == ([0], Counter(not_finite=1))
    assert learner.scorings[0] == 2


def of_versions(assigned, versions):
    """An episode whose chunks were chosen by these versions."""
    item = episode(0, len(versions), terminated=True, version=versions)
    return dataclasses.replace(item, number=assigned.number)


def delivered(learner, assigned, versions):
    learner.assignments.deliver(assigned.number, assigned.seed)
    learner.queue.append(of_versions(assigned, versions))


@pytest.mark.parametrize(
    ("versions", "updates"),
    [([3, 3], [2, 2]), ([2, 3], [1, 2]), ([1, 1, 3], [-1, -1, 2]), ([0, 2, 3], [-1, 1, 2])],
)
def test_an_episode_is_learned_from_if_any_of_its_chunks_can_be_scored(versions, updates):
    learner = Learner(max_staleness=1, size=1)
    learner.push()
    learner.push()
    delivered(learner, *learner.start(), versions)
    (item,), dropped = learner.collector.collect()
    assert not +dropped
    np.testing.assert_array_equal(item.update, updates)


@pytest.mark.parametrize("versions", [[1], [0, 1], [4], [3, 4], [1, 3, 10_000]])
def test_an_episode_of_too_old_versions_alone_or_of_one_never_pushed_is_played_again(versions):
    learner = Learner(max_staleness=1, size=1)
    learner.push()
    learner.push()
    delivered(learner, *learner.start(), versions)
    learner.later = [lambda: learner.replay(0)]
    assert learner.collect() == ([0], Counter(unknown_version=1))
    assert learner.scorings == Counter([0])


def test_chunks_that_grow_too_old_after_they_were_scored_ahead_are_masked():
    learner = Learner(max_staleness=1, size=1)
    learner.push()
    delivered(learner, *learner.start(), [1, 2, 2])
    with learner.collector.meanwhile():
        wait_until(lambda: learner.scorings[0] == 1)
    learner.push()
    learner.stop.clear()
    (item,), dropped = learner.collector.collect()
    assert not +dropped
    np.testing.assert_array_equal(item.episode.stale, [True, False, False])
    np.testing.assert_array_equal(item.update, [-1, 1, 1])
    assert learner.scorings[0] == 1


def test_an_error_in_scoring_ahead_is_raised_when_its_update_is_done():
    def broken(number):
        raise RuntimeError("out of memory")

    learner = Learner(max_staleness=1, scored=broken)
    learner.arrive(*learner.start(1))
    with learner.collector.meanwhile():
        wait_until(lambda: learner.scorings[0])
    with pytest.raises(RuntimeError, match="out of memory"):
        learner.collect()
