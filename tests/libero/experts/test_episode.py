"""Whole episodes in LIBERO: what holds after each phase, a thing that is lost, and an error of aim."""

import numpy as np
import pytest

from bridge.libero.experts import phases
from bridge.libero.experts.expert import Expert

SCENES = {
    "basket": ("alphabet_soup_1", "basket_1_contain_region"),
    "spatial": ("akita_black_bowl_1", "plate_1"),
}
OPEN = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)


class Played:
    """An episode, with what was the case when each phase ended."""

    def __init__(self, env, state, disturb=None, **settings):
        env.reset(seed=state, options={"task": 0, "init_state": state})
        self.expert = Expert(env.simulator, rng=np.random.default_rng(state), **settings)
        scene = self.expert._scene
        ((self.thing, self.place),) = scene.goals
        self.start, self.top = scene.position(self.thing), scene.boxes(self.thing).bounds()[1][2]
        self.commands, self.phases, self.order, self.ends = [], [], [], {}
        over, before = False, None
        while not over:
            command = self.expert.act()
            phase = self.expert.job.phase.name
            if phase != before:
                self.order.append(phase)
            if disturb is not None and disturb(self, phase, len(self.commands)):
                command = OPEN
            self.commands.append(command)
            self.phases.append(phase)
            *_, terminated, truncated, info = env.step(command)
            self.ends[phase] = scene.hand(), scene.position(self.thing), scene.boxes(self.thing).bounds()
            over, before = terminated or truncated, phase
        self.success, self.goal = info["is_success"], scene.center(self.place)


@pytest.fixture(scope="module", params=SCENES)
def played(request):
    episode = Played(request.getfixturevalue(request.param), state=7, noise=0.05)
    assert (episode.thing, episode.place) == SCENES[request.param]
    return episode


def test_it_succeeds_phase_by_phase(played):
    assert played.success
    names = [phase.name for phase in phases.PHASES]
    assert played.order == names[: len(played.order)]
    assert played.order[-1] in ("lower", "release")  # LIBERO ends an episode at its success


def test_commands_are_libero_s(played):
    commands = np.array(played.commands)
    assert commands.dtype == np.float32
    assert commands.shape[1] == 7
    assert np.abs(commands).max() <= 1
    assert set(commands[:, 6]) == {-1.0, 1.0}


def test_the_hand_comes_from_above_and_down_around_the_thing(played):
    hand, thing, _ = played.ends["hover"]
    assert hand.position[2] > played.top + 0.02
    np.testing.assert_allclose(thing, played.start, atol=0.005)  # nothing was touched
    hand, thing, (low, high) = played.ends["descend"]
    np.testing.assert_allclose(thing, played.start, atol=0.005)
    assert low[2] < hand.position[2] < high[2]
    assert (hand.position[:2] > low[:2] - 0.01).all()
    assert (hand.position[:2] < high[:2] + 0.01).all()
    np.testing.assert_allclose(hand.approach, (0, 0, -1), atol=0.1)


def test_the_thing_is_lifted_carried_and_let_go_over_its_place(played):
    _, thing, _ = played.ends["lift"]
    assert thing[2] > played.start[2] + 0.015  # it goes on upwards while it is carried
    _, thing, (low, _) = played.ends["carry"]
    assert np.linalg.norm(thing[:2] - played.goal[:2]) < 0.02
    assert low[2] > played.goal[2]
    np.testing.assert_allclose(played.ends[played.order[-1]][1][:2], played.goal[:2], atol=0.03)


def test_commands_change_little_while_something_is_carried(spatial):
    episode = Played(spatial, state=3, noise=0.0)
    carries = {phase.name for phase in phases.PHASES if phase.carries}
    carried = [phase in carries for phase in episode.phases]
    changes = np.diff(np.array(episode.commands)[:, :3], axis=0)[carried[1:]]
    assert len(changes) > 10
    assert np.abs(changes).max() < 0.15 + 1e-6


def test_a_thing_that_is_lost_on_the_way_is_fetched_again(basket):
    def opens(episode, phase, step):
        """The hand lets go in the middle of the first carrying, for half a second."""
        if phase == "carry" and not hasattr(episode, "dropped"):
            episode.dropped = step
        return hasattr(episode, "dropped") and 8 <= step - episode.dropped < 18

    episode = Played(basket, state=2, disturb=opens)
    assert episode.order[: episode.order.index("carry") + 2] == [
        "hover",
        "descend",
        "grip",
        "lift",
        "carry",
        "hover",
    ]
    assert episode.success


def test_noise_is_of_the_size_that_is_asked_for(basket):
    """Two experts in one scene differ by the noise alone."""
    basket.reset(seed=1, options={"task": 0, "init_state": 1})
    calm = Expert(basket.simulator, rng=np.random.default_rng(0)).act()
    commands = np.array(
        [Expert(basket.simulator, rng=np.random.default_rng(k), noise=0.02).act() for k in range(60)]
    )
    free = np.abs(calm[:6]) < 0.9  # the others are cut off at 1
    spread = commands.std(0)[:6][free]
    expected = np.array([0.02] * 3 + [0.006] * 3)[free]
    np.testing.assert_allclose(spread, expected, rtol=0.4)
    np.testing.assert_allclose(commands.mean(0)[:6][free], calm[:6][free], atol=0.01)


@pytest.mark.parametrize("offset", [(0.012, 0.0), (0.0, -0.012)])
def test_an_error_of_aim_moves_where_a_thing_is_taken_and_not_where_it_is_put(basket, offset):
    basket.reset(seed=0, options={"task": 0, "init_state": 0})
    rng = np.random.default_rng(0)
    experts = Expert(basket.simulator, rng=rng), Expert(basket.simulator, rng=rng, aim_offset=offset)
    straight, beside = (expert.job.step(expert._scene.hand()).position for expert in experts)
    np.testing.assert_allclose(beside - straight, (*offset, 0), atol=1e-9)
    played = Played(basket, 0, aim_offset=offset)
    assert np.linalg.norm(played.ends["carry"][1][:2] - played.goal[:2]) < 0.02


def test_an_error_of_aim_that_is_large_enough_fails(basket):
    assert not Played(basket, state=0, aim_offset=(0.08, 0.0)).success
