"""Demonstrations in X-VLA's terms drive the robot as the expert did."""

import numpy as np
import pytest
import torch
from assets import DEVELOPMENT_ASSETS
from chunked import stock, task

from bridge import plugin
from bridge.libero.record import Attempt, demonstrate, record

EXPERT = DEVELOPMENT_ASSETS.parent / "scripted_expert.py"
NAME = f"{EXPERT}:PickPlaceExpert"

pytestmark = pytest.mark.skipif(not EXPERT.is_file(), reason=f"there is no expert at {EXPERT}")


def attempt(**changes):
    settings = {"task": task("libero_object"), "init_state": 3, "seed": 3, "image_size": 64, "noise": 0.05}
    return Attempt(**settings | changes, expert=NAME)


def test_the_recorded_poses_solve_the_task_in_absolute_control():
    from tiny_libero import libero_policy_config

    from bridge.plugin.libero_config import LiberoConfig

    plugin.register()
    demonstration = demonstrate(attempt())
    assert demonstration.success
    T = len(demonstration.actions)
    assert demonstration.states.shape == demonstration.actions.shape == (T, 20)
    assert {name: frames.shape for name, frames in demonstration.images.items()} == {
        "image": (T, 64, 64, 3),
        "image2": (T, 64, 64, 3),
    }
    config = LiberoConfig(task="libero_object", control_mode="absolute")
    commands = config.env_action(libero_policy_config(), torch.from_numpy(demonstration.actions))
    env = stock(task("libero_object"), control_mode="absolute")
    env.init_state_id = 3
    env.reset(seed=3)
    success = False
    for command in np.asarray(commands):
        *_, info = env.step(command)
        success = success or bool(info["is_success"])
    env.close()
    assert success


def test_a_dataset_holds_what_was_asked_for(tmp_path):
    with pytest.raises(ValueError, match="already exists"):
        record(tmp_path, [task("libero_object")], 1, NAME)
    dataset = record(
        tmp_path / "dataset", [task("libero_object")], 1, NAME, image_size=64, workers=1, noise=0.0
    )
    assert dataset.num_episodes == 1
    frame = dataset[0]
    assert frame["observation.images.image2"].shape == (3, 64, 64)
    assert frame["action"].shape == frame["observation.state"].shape == (20,)
    assert "basket" in frame["task"]
