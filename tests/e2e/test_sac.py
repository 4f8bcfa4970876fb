"""With the plugin loaded, LeRobot's own SAC still trains: its actor and its learner, as stock commands."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from forked import Command
from lerobot.datasets import LeRobotDataset

STATE_DIM, ACTION_DIM = 18, 4
TIMEOUT_S = 300
FEATURES = {
    "observation.state": {"type": "STATE", "shape": [STATE_DIM]},
    "action": {"type": "ACTION", "shape": [ACTION_DIM]},
}


def offline_dataset(root: Path) -> dict:
    """Make the eight frames that LeRobot's config validation and SAC learner insist on."""
    numbers = {"dtype": "float32", "names": None}
    dataset = LeRobotDataset.create(
        "local/sac",
        fps=10,
        root=root,
        use_videos=False,
        features={
            "observation.state": numbers | {"shape": (STATE_DIM,)},
            "action": numbers | {"shape": (ACTION_DIM,)},
            "next.reward": numbers | {"shape": (1,)},
            "next.done": {"dtype": "bool", "shape": (1,), "names": None},
            "complementary_info.discrete_penalty": numbers | {"shape": (1,)},
        },
    )
    for t in range(8):
        dataset.add_frame(
            {
                "observation.state": np.zeros(STATE_DIM, np.float32),
                "action": np.zeros(ACTION_DIM, np.float32),
                "next.reward": np.zeros(1, np.float32),
                "next.done": np.array([t == 7]),
                "complementary_info.discrete_penalty": np.zeros(1, np.float32),
                "task": "pick the cube",
            }
        )
    dataset.save_episode()
    dataset.finalize()
    return {"repo_id": "local/sac", "root": str(root)}


def sac_config(output_dir: Path, port: int, dataset: dict, *, control_time_s: float | None) -> dict:
    processor: dict = {"gripper": {"use_gripper": True, "gripper_penalty": 0.0}}
    if control_time_s is not None:
        processor["reset"] = {"control_time_s": control_time_s, "reset_time_s": 0.0}
    return {
        "output_dir": str(output_dir),
        "job_name": "sac",
        "seed": 1,
        "batch_size": 4,
        "num_workers": 0,
        "log_freq": 1,
        "save_checkpoint": False,
        "dataset": dataset,
        "wandb": {"enable": False},
        "policy": {
            "type": "gaussian_actor",
            "device": "cpu",
            "storage_device": "cpu",
            "push_to_hub": False,
            "online_buffer_capacity": 64,
            "online_step_before_learning": 4,
            "latent_dim": 16,
            "state_encoder_hidden_dim": 16,
            "actor_network_kwargs": {"hidden_dims": [16]},
            "input_features": {"observation.state": FEATURES["observation.state"]},
            "output_features": {"action": FEATURES["action"]},
            "dataset_stats": {
                "observation.state": {"min": [-10.0] * STATE_DIM, "max": [10.0] * STATE_DIM},
                "action": {"min": [-1.0] * ACTION_DIM, "max": [1.0] * ACTION_DIM},
            },
            "actor_learner_config": {
                "learner_port": port,
                "policy_parameters_push_frequency": 1,
                "queue_get_timeout": 0.5,
            },
        },
        "algorithm": {"type": "sac", "critic_network_kwargs": {"hidden_dims": [16]}},
        "env": {
            "type": "gym_manipulator",
            "name": "gym_hil",
            "task": "PandaPickCube-v0",
            "fps": 10,
            "features": FEATURES,
            "features_map": {name: name for name in FEATURES},
            "processor": processor,
        },
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(module: str, config: dict, folder: Path) -> tuple[Command, Path]:
    config_path, log_path = folder / f"{module}.json", folder / f"{module}.log"
    config_path.write_text(json.dumps(config))
    arguments = [f"--config_path={config_path}", "--env.discover_packages_path=bridge.plugin"]
    return Command(f"lerobot.rl.{module}", arguments, log_path), log_path


def optimization_steps(log: Path) -> int:
    return max(map(int, re.findall(r"Number of optimization step: (\d+)", log.read_text())), default=0)


def parameter_loads(log: Path) -> int:
    return log.read_text().count("Load new parameters from Learner.")


@pytest.mark.e2e
def test_stock_sac_pair_trains_with_the_plugin_loaded(tmp_path: Path):
    dataset, port = offline_dataset(tmp_path / "dataset"), free_port()
    # lerobot 0.6.1's learner cannot print a config with processor.reset; only the actor needs the time limit.
    configs = {
        "learner": sac_config(tmp_path / "learner", port, dataset, control_time_s=None),
        "actor": sac_config(tmp_path / "actor", port, dataset, control_time_s=0.5),
    }
    processes: dict[str, Command] = {}
    logs: dict[str, Path] = {}
    try:
        for module, config in configs.items():
            processes[module], logs[module] = start(module, config, tmp_path)
        deadline = time.monotonic() + TIMEOUT_S
        while optimization_steps(logs["learner"]) < 5 or parameter_loads(logs["actor"]) < 2:
            ended = [module for module, process in processes.items() if process.poll() is not None]
            tails = "\n".join(f"--- {name}\n{log.read_text()[-4000:]}" for name, log in logs.items())
            assert not ended, f"{ended} ended by itself\n{tails}"
            assert time.monotonic() < deadline, f"no five updates and two loads in {TIMEOUT_S} s\n{tails}"
            time.sleep(0.5)
    finally:
        for process in reversed(processes.values()):
            process.terminate()
        for process in processes.values():
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    assert "Unhandled exception" not in logs["actor"].read_text() + logs["learner"].read_text()
