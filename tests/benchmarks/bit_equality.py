"""Does a change of the code change what the program computes? The metrics of three updates, bit for bit.

    python tests/benchmarks/bit_equality.py record before.json --repository ../pirl-jax-before
    python tests/benchmarks/bit_equality.py record after.json
    python tests/benchmarks/bit_equality.py compare before.json after.json

``record`` runs the learner's command of a checkout on its demo config, on each of its presets, and on the
settings in ``EXTRA_CASES``, from one random policy, with LeRobot's own actor. All without staleness: a run is
then a function of its seed. Every number of ``metrics.jsonl`` that training has to do with is compared as it
was written, which is exact.

Settings are given by the names they had before there were sections. A checkout from before episodes were
assigned plays other episodes, and cannot be compared with one from after it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]

UPDATES = 3
EPISODES = 8
GROUP = 4
SMALL = {
    "episodes_per_update": EPISODES,
    "minibatch_size": 8,
    "max_chunks": 4,
    "critic.hidden_dims": "[16]",
    "critic.lr": 1e-3,
    "lr": 1e-3,
    "max_staleness": 0,
}
"""Sizes for two CPU cores, and steps long enough to be seen; everything else is the preset's own."""

PRESETS = ("async", "grpo", "pirl_paper", "xvla_default")
NOT_EE6D = {"noise.group_scale": "{}"}
"""The small policy's action space has joints alone."""
PRESET_CHANGES: dict[str, dict[str, Any]] = {
    "grpo": {
        "group_size": GROUP,
        "group_return_range": "[-1, 2]",
        # There is no critic: the preset's own, which are the defaults.
        "critic.hidden_dims": "[1024, 512, 256]",
        "critic.lr": 1e-4,
    },
    "pirl_paper": {"noise.level": 0.3},
    "xvla_default": {**NOT_EE6D, "noise.level": 0.1},
}

EXTRA_CASES: dict[str, dict[str, Any]] = {
    "flow_noise": {
        "noise.mode": "flow_noise",
        "noise.level": 0.1,
        "entropy_coef": 0.005,
        "critic.warmup_updates": 1,
        "critic.extra_steps": 5,
        "weight_decay": 0.01,
    },
    "flow_cps_by_action": {
        "noise.mode": "flow_cps",
        "noise.level": 0.5,
        "noise.replay": "full",
        "aggregation": "action",
        "loss_weighting": "episode",
        "normalize_advantages": "false",
    },
    "everything_else": {
        "noise.level": 0.2,
        "noise.final_level": 0.1,
        "noise.decay_updates": 2,
        "noise.correlation": 0.5,
        "decoupled": "true",
        "reference_kl_coef": 0.1,
        "anchor.coef": 0.5,
        "anchor.final_coef": 0.1,
        "anchor.decay_updates": 2,
        "anchor.batch_size": 4,
        "anchor.max_samples": 16,
        "critic.input": "expert",
        "critic.extra_steps": 3,
        "critic.warmup_updates": 1,
        "loss_weighting": "episode",
        "target_kl": 0.05,
        "adaptive_lr": "true",
        "lr_warmup_steps": 4,
        "push_dtype": "bfloat16",
    },
}

TIMES = ("train/collect_s", "train/update_s", "train/samples_per_s")
RENAMED_METRICS = {
    "train/anchor_loss": "train/demonstrations_loss",
    "train/anchor_coef": "train/demonstrations_coef",
}
"""Old name → new name, which is all that may differ."""


class Walk(gym.Env):
    """An episode of 4 to 28 steps, drawn from its seed; its first action decides whether it succeeds."""

    observation_space = gym.spaces.Dict({})
    action_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw length and first observation from the seed."""
        super().reset(seed=seed)
        self._length = int(self.np_random.integers(4, 29))
        self._steps, self._success = 0, False
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Toss a coin at the first step, pay it at the last, and a little on the way."""
        if self._steps == 0:
            self._success = bool(np.floor(1000 * action[0]) % 2)
        self._steps += 1
        over = self._steps == self._length
        reward = float(over and self._success) + 0.01 * float(np.tanh(action[1]))
        return self._observe(), reward, over and self._success, over, {"is_success": over and self._success}

    def _observe(self) -> dict[str, Any]:
        pixels = self.np_random.integers(0, 256, (64, 64, 3), np.uint8)
        return {"pixels": {"front": pixels}, "agent_pos": self.np_random.normal(size=5).astype(np.float32)}


if __name__ != "__main__":  # imported as the environment's module: ``env.gym_id=bit_equality:Walk-v0``
    gym.register("Walk-v0", Walk, disable_env_checker=True, order_enforce=False)


def main() -> None:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record", help="run the learner of a checkout")
    record.add_argument("file", type=Path)
    record.add_argument("--repository", type=Path, default=ROOT)
    record.add_argument("--only", help="one case by its name")
    compare = commands.add_parser("compare", help="hold two records against each other")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "record":
        record_all(arguments.file, arguments.repository.resolve(), arguments.only)
    else:
        sys.exit(compare_files(arguments.before, arguments.after))


def record_all(file: Path, repository: Path, only: str | None) -> None:
    """Run every case in a checkout and write its metrics."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PYTHONPATH": f"{repository}:{HERE.parent}:{repository / 'tests'}",
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        base = prepare(Path(folder), repository, environment)
        for name, options in cases(repository).items():
            if only in (None, name):
                rows[name] = run_case(Path(folder) / name, base, options, repository, environment)
                print(f"{name}: {len(rows[name])} updates", flush=True)
    file.write_text(json.dumps(rows, indent=1) + "\n")


def prepare(folder: Path, repository: Path, environment: dict[str, str]) -> Path:
    """Write the policy, its tokenizer and a dataset, by LeRobot alone; return the base's folder."""
    program = (
        "import sys, torch, pathlib; sys.path[:0] = sys.argv[2:]\n"
        "from tiny import build_tokenizer, tiny_policy_config, write_dataset\n"
        "from lerobot.policies.xvla.modeling_xvla import XVLAPolicy\n"
        "folder = pathlib.Path(sys.argv[1]); torch.manual_seed(0)\n"
        "tokenizer = build_tokenizer(folder / 'tokenizer')\n"
        "XVLAPolicy(tiny_policy_config(tokenizer_name=str(tokenizer))).save_pretrained(folder / 'base')\n"
        "write_dataset(folder / 'dataset')\n"
    )
    subprocess.run([sys.executable, "-c", program, folder], env=environment, check=True, cwd=repository)
    return folder


def cases(repository: Path) -> dict[str, list[str]]:
    """Return each case's command line, the same for learner and actor."""
    presets = repository / "configs" / "presets"
    found = {
        name: [
            f"--algorithm=include {presets / f'{name}.json'}",
            *options(SMALL | PRESET_CHANGES.get(name, {}), repository),
        ]
        for name in PRESETS
    }
    demo = SMALL | {"lr": 3e-4, "minibatch_size": 8}
    found["demo"] = options(demo, repository)
    found |= {name: options(SMALL | changes, repository) for name, changes in EXTRA_CASES.items()}
    return found


def options(settings: dict[str, Any], repository: Path) -> list[str]:
    """Return ``--algorithm.…`` by the names that a checkout has."""
    program = "from pirl_jax.recipe.renamed import RENAMED; import json; print(json.dumps(dict(RENAMED)))"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        cwd=repository,
    )
    renamed = json.loads(answer.stdout) if answer.returncode == 0 else {}
    for old, new in [*renamed.items()]:
        if "." not in new and "." not in old:  # a whole section
            renamed |= {
                key: key.replace(f"{old}.", f"{new}.") for key in settings if key.startswith(f"{old}.")
            }
    return [f"--algorithm.{renamed.get(name, name)}={value}" for name, value in settings.items()]


def run_case(
    folder: Path, base: Path, settings: list[str], repository: Path, environment: dict[str, str]
) -> list[dict[str, Any]]:
    """Run learner and actor; return the rows of metrics without times."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = [
        f"--config_path={repository / 'configs' / 'panda_pick_cube.json'}",
        f"--policy.path={base / 'base'}",
        f"--dataset.root={base / 'dataset'}",
        "--dataset.repo_id=test/demos",
        "--env.gym_id=bit_equality:Walk-v0",
        f"--algorithm.actor_learner_config.learner_port={port}",
        f"--steps={UPDATES}",
        "--save_freq=100",
        "--seed=3",
        *settings,
    ]
    learner_command = ["-m", "pirl_jax.learner", *shared, f"--output_dir={folder / 'learner'}"]
    actor_command = ["-m", "lerobot.rl.actor", *shared, f"--output_dir={folder / 'actor'}"]
    actor_command += ["--env.discover_packages_path=bridge.plugin"]
    processes = []
    for name, command in (("learner", learner_command), ("actor", actor_command)):
        with (folder / f"{name}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *command], stdout=log, stderr=log, env=environment, cwd=repository
                )
            )
    learner, actor = processes
    try:
        deadline = time.monotonic() + 600
        while learner.poll() is None and not actor.poll() and time.monotonic() < deadline:
            time.sleep(0.5)
        if learner.poll() != 0:
            logs = [(folder / f"{name}.log").read_text()[-3000:] for name in ("learner", "actor")]
            raise RuntimeError(f"{folder.name} failed: {logs[0]}\n{logs[1]}")
    finally:
        actor.kill()
        learner.kill()
    lines = (folder / "learner" / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k.startswith(("train/", "dropped/")) and k not in TIMES}
        for line in lines
    ]


def compare_files(before: Path, after: Path) -> int:
    """Print every difference; return how many cases differ."""
    old, new = (json.loads(file.read_text()) for file in (before, after))
    differing = 0
    for name in sorted(old | new):
        a, b = (
            [{RENAMED_METRICS.get(k, k): v for k, v in row.items()} for row in rows.get(name, [])]
            for rows in (old, new)
        )
        differences = [
            f"update {i + 1}, {key}: {x.get(key)} → {y.get(key)}"
            for i, (x, y) in enumerate(zip(a, b))
            for key in sorted(x | y)
            if x.get(key) != y.get(key)
        ]
        equal = a == b and len(a) == UPDATES
        differing += not equal
        numbers = sum(map(len, a))
        print(
            f"{name}: {'equal' if equal else 'DIFFERENT'}, {len(a)} and {len(b)} updates, {numbers} numbers"
        )
        print(*(f"    {line}" for line in differences[:20]), sep="\n" if differences else "")
    return differing


if __name__ == "__main__":
    main()
