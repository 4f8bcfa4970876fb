"""Which expert plays, and what is refused, each in one line."""

import math

import numpy as np
import pytest

from bridge.libero.experts.choice import Choice, read_offset
from bridge.libero.suites import TaskId, select_tasks

MINE = "class Mine:\n    def __init__(self, simulator, *, rng, noise): self.said = simulator, rng, noise\n"


def test_the_projects_expert_plays_two_whole_suites():
    Choice().check(select_tasks("libero_object,libero_spatial", None))


def test_a_task_without_an_expert_is_refused_by_name_with_those_that_have_one():
    with pytest.raises(ValueError, match="no expert of libero_goal_0, libero_90_3") as caught:
        Choice().check([TaskId("libero_object", 0), TaskId("libero_goal", 0), TaskId("libero_90", 3)])
    text = str(caught.value)
    assert "libero_spatial: 0-9; libero_object: 0-9" in text
    assert "--expert=file.py:Class" in text
    assert "\n" not in text


def test_an_expert_of_ones_own_plays_any_task_and_gets_simulator_rng_and_noise(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    mine = Choice(f"{tmp_path}/mine.py:Mine", noise=0.3)
    mine.check([TaskId("libero_90", 3)])
    simulator, rng, noise = mine.make("a simulator", seed=7).said
    assert (simulator, noise) == ("a simulator", 0.3)
    assert rng.random() == np.random.default_rng(7).random()


@pytest.mark.parametrize("name", ["none.py:Mine", "mine.py:Other", "mine.py"])
def test_an_expert_that_is_not_there_is_asked_for(tmp_path, name):
    (tmp_path / "mine.py").write_text(MINE)
    with pytest.raises(ValueError, match=r"--expert must be file.py:Class"):
        Choice(f"{tmp_path}/{name}").check([TaskId("libero_object", 0)])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"noise": -0.1}, "--noise must be ≥ 0"),
        ({"noise": math.nan}, "--noise must be ≥ 0"),
        ({"aim_offset_mm": (0.0, 101.0)}, "within ±100 mm"),
        ({"aim_offset_mm": (math.nan, 0.0)}, "within ±100 mm"),
        ({"file": "mine.py:Mine", "aim_offset_mm": (5.0, 0.0)}, "is for the project's expert"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Choice(**settings)


def test_an_offset_is_two_numbers():
    assert read_offset("15,-2.5") == (15.0, -2.5)
    for text in ("15", "15,2,3", "x,y", ""):
        with pytest.raises(ValueError, match="--aim_offset_mm must be X,Y"):
            read_offset(text)
