"""Groups of episodes from one initial state."""

from dataclasses import dataclass

import pytest

from pirl_jax.rollout.groups import Groups


@dataclass(frozen=True)
class Played:
    seed: int
    total_return: float
    update: int = 0
    task: str = ""

    @property
    def origin(self):
        return self.task, self.seed


def test_a_group_comes_out_when_its_last_episode_arrives():
    groups = Groups[Played](2, 1e-3)
    first, other, second = Played(1, 1.0), Played(2, 1.0), Played(1, 0.0)
    assert groups.add(first) == ([], 0)
    assert groups.add(other) == ([], 0)
    assert groups.add(second) == ([first, second], 0)
    assert groups.add(Played(1, 0.0)) == ([], 0)  # the next group of that state


def test_one_seed_in_two_tasks_is_two_groups():
    groups = Groups[Played](2, 1e-3)
    groups.add(Played(1, 1.0, task="a"))
    assert groups.add(Played(1, 0.0, task="b")) == ([], 0)


def test_groups_that_all_succeed_or_all_fail_are_dropped():
    for outcome in (0.0, 1.0):
        groups = Groups[Played](3, 1e-3)
        verdicts = [groups.add(Played(1, outcome)) for _ in range(3)]
        assert verdicts == [([], 0), ([], 0), ([], 3)]


@pytest.mark.parametrize("outcome", [0.3, -7.0, 40.0])
def test_equal_returns_teach_nothing_whatever_they_are(outcome):
    groups = Groups[Played](8, 1e-3)
    assert [groups.add(Played(1, outcome)) for _ in range(8)][-1] == ([], 8)


def test_returns_on_any_scale_teach_something_if_they_differ():
    groups = Groups[Played](2, 1e-3)
    groups.add(Played(1, 480.0))
    assert len(groups.add(Played(1, 500.0))[0]) == 2


def test_a_range_of_mean_returns_may_be_asked_for_besides():
    for outcomes, kept in (((0.0, 1.0), 2), ((0.0, 0.1), 0), ((0.9, 1.0), 0)):
        groups = Groups[Played](2, 1e-3, (0.1, 0.9))
        members = [groups.add(Played(1, outcome)) for outcome in outcomes][-1][0]
        assert len(members) == kept


def test_open_groups_of_old_policies_are_forgotten():
    groups = Groups[Played](3, 1e-3)
    for member in (Played(1, 1.0, update=4), Played(1, 0.0, update=6), Played(2, 0.0, update=5)):
        groups.add(member)
    assert groups.drop_before(5) == 2
    assert groups.drop_before(5) == 0
    assert groups.add(Played(2, 1.0)) == ([], 0)
    assert groups.add(Played(2, 1.0))[0]
