"""When a launch's actor counts as silent: a process that is made up, on a clock that is."""

import pytest

from bridge.launch.actor import Actor
from bridge.wire.protocol import ActorStatus, Status
from pirl_jax.recipe import LaunchConfig


class Process:
    """Lives until it is killed."""

    status: int | None = None
    placed = True

    def poll(self):
        return self.status

    def terminate(self):
        self.status = -15

    def kill(self):
        self.status = -9


@pytest.fixture
def actor(tmp_path):
    def start(module, arguments, log, environment):
        log.write_text("a line\n")
        return Process()

    settings = LaunchConfig(hang_after_s=60, backoff_s=0)
    return Actor(3, ("--config_path=cfg.json",), tmp_path, settings, start, lambda line: None)


def status(*rows, run=1):
    return Status(
        run, 0, 10, 1, 0, 4, 0, 0, [ActorStatus("3", 1000 * s, episodes, 1) for s, episodes in rows]
    )


def test_an_actor_that_never_registers_is_killed(actor):
    actor.step(0, status())
    actor.step(60, status())
    assert actor.slot.process.status is None
    actor.step(61, status())
    assert actor.slot.process.status == -9


def test_while_the_learner_is_away_no_actor_counts_as_silent(actor):
    actor.step(0, status())
    for now in range(10, 200, 10):
        actor.step(now, None)
    actor.step(201, status((199, 5)))
    assert actor.slot.process.status is None
    actor.step(251, status((249, 5)))
    assert actor.slot.process.status == -9


def test_what_is_known_of_the_process_before_says_nothing_of_this_one(actor):
    actor.step(0, status())
    actor.step(30, status((1, 5)))
    assert (actor.registered, actor.episodes) == (True, 5)
    actor.slot.process.kill()
    actor.step(31, status((2, 5)))
    actor.step(32, status((3, 5)))  # the next begins
    actor.step(33, status((4, 5)))
    assert (actor.slot.restarts, actor.registered, actor.episodes) == (1, False, 5)
    actor.step(40, status((11, 5), (0, 1)))
    assert (actor.registered, actor.episodes) == (True, 6)
    actor.step(50, status((0, 2), run=2))  # another learner counts from 0
    assert actor.episodes == 8


def test_one_that_waits_for_a_node_with_room_does_not_count_as_silent(actor):
    actor.step(0, status())
    actor.slot.process.placed = False
    for now in range(10, 200, 10):
        actor.step(now, status())
    actor.slot.process.placed = True
    actor.step(240, status())
    assert actor.slot.process.status is None
    actor.step(251, status())
    assert actor.slot.process.status == -9
