"""Demonstrations in X-VLA's terms drive the robot as the expert did."""

import json
import signal
import sys

import numpy as np
import pytest
import torch
from chunked import stock, task
from lerobot.datasets import LeRobotDataset

from bridge import plugin
from bridge.libero import record as command
from bridge.libero import recording
from bridge.libero.demonstrate import Attempt, demonstrate, environment
from bridge.libero.experts.choice import Choice
from bridge.libero.recording import record


def attempt(suite="libero_object", state=3, size=64, **expert):
    return Attempt(task(suite), state, state, Choice(**expert), size)


@pytest.fixture(scope="module")
def demonstration():
    return demonstrate(attempt())


@pytest.mark.slow
def test_the_recorded_poses_solve_the_task_in_absolute_control(demonstration):
    from tiny_libero import libero_policy_config

    from bridge.plugin.libero_config import LiberoConfig

    plugin.register()
    assert demonstration.success
    config = LiberoConfig(task="libero_object", control_mode="absolute")
    commands = config.env_action(libero_policy_config(), torch.from_numpy(demonstration.actions))
    env = stock(task("libero_object"), control_mode="absolute")
    env.init_state_id = 3
    env.reset(seed=3)
    success = False
    for action in np.asarray(commands):
        *_, info = env.step(action)
        success = success or bool(info["is_success"])
    env.close()
    assert success


@pytest.mark.slow
def test_it_is_drawn_at_the_end_as_it_would_have_been_on_time(demonstration):
    """Bit for bit, in an episode that is drawn at each step."""
    T = len(demonstration.actions)
    assert demonstration.states.shape == demonstration.actions.shape == (T, 20)
    env = environment(task("libero_object"), 64)
    env.set_rendering(True)
    observation, _ = env.reset(seed=3, options={"task": 0, "init_state": 3})
    expert = Choice().make(env.simulator, seed=3)
    for step in range(T):
        for name in ("image", "image2"):
            assert demonstration.images[name].shape == (T, 64, 64, 3)
            np.testing.assert_array_equal(demonstration.images[name][step], observation["pixels"][name])
        np.testing.assert_array_equal(demonstration.states[step], observation["agent_pos"])
        observation, *_ = env.step(expert.act())


def test_a_failed_episode_is_not_drawn(demonstration):
    failed = demonstrate(attempt(aim_offset_mm=(90.0, 0.0)))
    assert (failed.success, failed.images) == (False, {})
    # 280 steps of two cameras that were drawn would take several times what a success of half as many takes.
    assert failed.cpu_seconds < 2 * demonstration.cpu_seconds


def test_a_dataset_holds_what_was_asked_for_whether_or_not_it_was_stopped(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="already exists"):
        record(tmp_path, [task("libero_object")], 1, Choice())
    with pytest.raises(ValueError, match="no expert of libero_goal_0"):
        record(tmp_path / "dataset", [task("libero_goal")], 1, Choice())
    folder = tmp_path / "dataset"

    def run(seed=0):
        settings = {"states": range(7, 8), "image_size": 64, "processes": 1, "seed": seed}
        return record(folder, [task("libero_object")], 2, Choice(noise=0.0), **settings)

    save = recording._save

    def save_and_be_stopped(*args):
        signal.raise_signal(signal.SIGINT)
        save(*args)

    with monkeypatch.context() as patched:
        patched.setattr(recording, "_save", save_and_be_stopped)
        with pytest.raises(KeyboardInterrupt):
            run()
    with pytest.raises(ValueError, match="begun with another seed: 0, not 1"):
        run(seed=1)
    assert run() == {"libero_object_0": 2}
    with pytest.raises(ValueError, match="already exists"):
        run()
    dataset = LeRobotDataset("pirl/libero", root=folder)
    assert dataset.num_episodes == 2
    frame = dataset[0]
    assert frame["observation.images.image2"].shape == (3, 64, 64)
    assert frame["action"].shape == frame["observation.state"].shape == (20,)
    assert "basket" in frame["task"]
    # Without noise, two episodes from the one initial state are the same.
    length = len(dataset) // 2
    np.testing.assert_array_equal(dataset[0]["observation.state"], dataset[length]["observation.state"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--suites=libero_goal", "--tasks=0"],
            "error: there is no expert of libero_goal_0. The project's plays",
        ),
        (["--init_states=20:60"], "error: --init_states must name some of the 50 initial states"),
        (["--episodes=0"], "error: --episodes must be ≥ 1"),
        (["--tasks=a"], "error: --tasks must be numbers"),
        (["--aim_offset_mm=4"], "error: --aim_offset_mm must be X,Y"),
    ],
)
def test_what_cannot_be_recorded_is_refused_in_a_line(tmp_path, monkeypatch, options, words):
    monkeypatch.setattr(sys, "argv", ["record", *options, f"--output_dir={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert str(ended.value).startswith(words)
    assert "\n" not in str(ended.value)


def test_the_command_says_how_it_was_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recording, "record", lambda *_, **settings: {"libero_object_0": 3} | _keep(settings))
    options = ["--tasks=0", "--episodes=2", "--init_states=20:50", "--noise=0.1", "--aim_offset_mm=15,0"]
    monkeypatch.setattr(sys, "argv", ["record", *options, f"--output_dir={tmp_path}"])
    command.main()
    assert SETTINGS["states"] == range(20, 50)
    recorded = json.loads((tmp_path / "recorded.json").read_text())
    assert recorded["attempts"] == {"libero_object_0": 3}
    assert recorded["settings"]["aim_offset_mm"] == "15,0"
    assert (tmp_path / "tokenizer").is_dir()
    assert f"{tmp_path}/recorded.json" in capsys.readouterr().out


SETTINGS = {}


def _keep(settings):
    SETTINGS.update(settings)
    return {}
