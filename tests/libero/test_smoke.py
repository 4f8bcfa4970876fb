"""The whole path on LIBERO with real parts: learner, stock actor, checkpoint, resume, evaluation, report."""

import json
import signal
from pathlib import Path

import imageio.v2 as imageio
import pytest
import torch
from assets import libero_config
from forked import Command
from lerobot.policies.xvla import XVLAPolicy
from tiny_libero import libero_policy_config, write_libero_config

from bridge.processes import free_port

pytestmark = pytest.mark.e2e


class Processes:
    """Starts commands of a run; kills what is left at the end."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.running: list[Command] = []

    def start(self, name: str, module: str, *arguments: str) -> Command:
        process = Command(module, list(arguments), self.folder / f"{name}.log", **self.environment)
        self.running.append(process)
        return process

    def wait(self, process: Command, name: str, seconds: float) -> None:
        assert process.wait(seconds) == 0, (self.folder / f"{name}.log").read_text()[-3000:]


@pytest.fixture
def processes(tmp_path, libero_environment):
    # The process that is forked may have been started without them.
    names = "HOME", "XDG_CACHE_HOME", "HF_HUB_OFFLINE", "MUJOCO_GL"
    started = Processes(tmp_path, libero_config() | {name: libero_environment[name] for name in names})
    yield started
    for process in started.running:
        process.kill()


def read_metrics(output_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_training_resuming_and_evaluating_on_libero(tmp_path, processes):
    port = free_port()
    path = write_libero_config(
        tmp_path, port, task_ids=[0], episode_length=12, train_init_states="20:50", eval_init_states="0:20"
    )
    config = json.loads(path.read_text())
    torch.manual_seed(0)
    base = tmp_path / "base"
    XVLAPolicy(libero_policy_config(tokenizer_name=config["policy"]["tokenizer_name"])).save_pretrained(base)
    config |= {"policy": {"path": str(base)}, "steps": 2, "save_freq": 1}
    config |= {"env_eval_freq": 2, "eval": {"n_episodes": 3}}
    config["algorithm"]["rollout"]["episodes_per_update"] = 2
    path.write_text(json.dumps(config))

    learner = processes.start("learner", "pirl_jax.learner", f"--config_path={path}")
    actor = processes.start(
        "actor",
        "lerobot.rl.actor",
        f"--config_path={path}",
        "--env.discover_packages_path=bridge.plugin",
        f"--output_dir={tmp_path / 'actor'}",
    )
    output_dir = tmp_path / "output"
    processes.wait(learner, "learner", 300)
    # The same actor goes on with the resumed learner.
    last = output_dir / "checkpoints" / "last"
    resume = f"--config_path={last / 'pretrained_model' / 'train_config.json'}"
    learner = processes.start("learner", "pirl_jax.learner", resume, "--resume=true", "--steps=3")
    processes.wait(learner, "learner", 200)
    actor.send_signal(signal.SIGTERM)
    processes.wait(actor, "actor", 60)

    rows = read_metrics(output_dir)
    evaluations = [row for row in rows if "eval/n_episodes" in row]
    assert [(row["step"], row["eval/n_episodes"], row["eval/version_lag"]) for row in evaluations] == [
        (step, 3, 0) for step in (0, 2, 3)
    ]
    assert all(row["eval/pc_success/libero_object_0"] == row["eval/pc_success"] for row in evaluations)
    rows = [row for row in rows if row not in evaluations]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert sum(row["train/episodes"] for row in rows) == 6
    assert all(row["train/success_rate/libero_object_0"] == row["train/success_rate"] for row in rows)
    assert max(row["train/actor_learner_logprob_gap"] for row in rows) < 1e-3
    assert last.readlink() == Path("000003")

    arguments = ["--preset=smoke", "--tasks=0", "--n_episodes=3", "--episode_length=5"]
    evaluation = processes.start(
        "evaluation", "bridge.evaluate", str(last), *arguments, f"--output_dir={tmp_path / 'evaluation'}"
    )
    processes.wait(evaluation, "evaluation", 300)
    report = json.loads((tmp_path / "evaluation" / "report.json").read_text())
    assert report["overall"]["n"] == 3
    assert "libero_object" in (tmp_path / "evaluation" / "report.md").read_text()
    assert imageio.imread(tmp_path / "evaluation" / "report.png").ndim == 3
