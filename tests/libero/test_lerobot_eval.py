"""The real ``lerobot-eval`` on real LIBERO, with an export of this project and without its plugin."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import export_for_libero

from bridge.evaluate.assets import NOTICE
from bridge.evaluate.benchmark import MATRIX

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]

FACTS = """
import json, sys
import gymnasium as gym
import numpy as np
from lerobot.envs.configs import LiberoEnv
from lerobot.envs.libero import TASK_SUITE_MAX_STEPS
from lerobot.envs.utils import NEW_ROLLOUT_OPTION

config = LiberoEnv(task="libero_object", task_ids=[3], episode_length=2)
config.observation_height = config.observation_width = 64
vector = config.create_envs(n_envs=1)["libero_object"][3]
env = vector.envs[0].unwrapped
states = []
for seed in range(3):
    vector.reset(seed=[seed], options={NEW_ROLLOUT_OPTION: True})
    # The scene has settled for ten steps since: the right initial state is the nearest one.
    now = env._env.get_sim_state()
    states.append(int(np.abs(env._init_states - now)[:, 10:].sum(1).argmin()))
    vector.step(np.zeros((1, 7), np.float32))
vector.close()
json.dump({"states": states, "steps": TASK_SUITE_MAX_STEPS}, open(sys.argv[1], "w"))
"""


@pytest.mark.slow
def test_lerobots_environment_takes_the_initial_states_in_order(libero_environment, tmp_path):
    from bridge.libero.suites import SUITES

    facts = tmp_path / "facts.json"
    subprocess.run([sys.executable, "-c", FACTS, facts], check=True, env=libero_environment, cwd=tmp_path)
    assert json.loads(facts.read_text()) == {
        "states": [0, 1, 2],
        "steps": {name: suite.max_steps for name, suite in SUITES.items()},
    }


def finished(output_dir: Path) -> dict[str, int]:
    """When each finished group was finished."""
    return {file.parent.name: file.stat().st_mtime_ns for file in output_dir.glob("tasks/*/result.json")}


@pytest.mark.slow
def test_an_interrupted_matrix_is_finished_without_repeating_anything(libero_environment, tmp_path):
    checkpoint = export_for_libero(tmp_path)
    output_dir = tmp_path / "matrix"
    command = [
        *(
            sys.executable,
            "-m",
            "bridge.evaluate",
            checkpoint,
            "--preset=matrix",
            "--tasks=0,1",
            "--n_episodes=1",
        ),
        *("--episode_length=2", "--tasks_per_process=2", "--processes=2", f"--output_dir={output_dir}"),
        *("--", "--policy.num_denoising_steps=1"),
    ]
    environment = libero_environment | {"PYTHONPATH": str(ROOT)}

    with subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE, cwd=tmp_path) as first:
        while not finished(output_dir) and first.poll() is None:
            time.sleep(0.2)
        first.send_signal(signal.SIGINT)
        _, error = first.communicate(timeout=60)
    assert first.returncode == 130, error
    assert "Continue with:\n  pirl-eval" in error
    kept = finished(output_dir)
    assert 1 <= len(kept) < len(MATRIX)
    assert not (output_dir / "report.json").exists()

    second = subprocess.run(command, env=environment, text=True, capture_output=True, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert f"{2 * len(kept)} of 8 tasks were finished before" in second.stdout
    assert kept.items() < finished(output_dir).items()
    assert len(finished(output_dir)) == len(MATRIX)

    report = json.loads((output_dir / "report.json").read_text())
    assert list(report["suites"]) == list(MATRIX)
    assert [suite["n"] for suite in report["suites"].values()] == [2, 2, 2, 2]
    assert report["overall"]["n"] == 8
    assert report["settings"]["control_mode"] == "absolute"
    assert {suite["horizon"] for suite in report["suites"].values()} == {2}
    for file in output_dir.glob("tasks/*/eval_info.json"):
        info = json.loads(file.read_text())
        assert info["overall"]["n_episodes"] == 2
        for path in info["overall"]["video_paths"]:
            assert Path(path).is_file()
    assert (report["notice"] == NOTICE) != report["assets"]["comparable_with_published"]
    assert (output_dir / "report.png").stat().st_size > 10_000
    assert "libero_spatial" in (output_dir / "report.md").read_text()
    assert "plugin" not in " ".join(report["commands"])

    compare = [sys.executable, "-m", "bridge.evaluate", "--compare", output_dir, output_dir]
    compared = subprocess.run(compare, env=environment, text=True, capture_output=True, cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert "| **all pairs** | 8 |" in compared.stdout
