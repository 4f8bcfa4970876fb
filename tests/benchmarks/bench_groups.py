"""How long a group of eight takes with one stock actor and with two. Run it as a script.

python tests/benchmarks/bench_groups.py [updates]

The environment's steps take 0.1 s each and little of the processor, so that two actors can be twice as fast
on two cores. Seconds that the learner waited for each update's one group, without the first, which compiles.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "e2e")]

from test_learner import free_port, write_config  # noqa: E402


def measure(folder: Path, actors: int, updates: int) -> list[float]:
    """Return the seconds of each update's collecting."""
    config = write_config(
        folder,
        free_port(),
        env={"gym_id": "coin_env:Coin-v0", "gym_kwargs": {"seconds": 0.1}},
        algorithm={
            "advantage": {"estimator": "group", "min_std": 1e-9},
            "critic": {"hidden_dims": [1024, 512, 256]},  # the default: there is none
            "rollout": {"group_size": 8, "episodes_per_update": 8, "max_staleness": 0},
        },
    )
    shared = [f"--config_path={config}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    commands = [["pirl_jax.learner", *shared, f"--steps={updates}", "--save_freq=0"]]
    commands += [
        [
            "lerobot.rl.actor",
            *shared,
            "--env.discover_packages_path=bridge.plugin",
            f"--output_dir={folder / f'actor{i}'}",
        ]
        for i in range(actors)
    ]
    processes = []
    for i, command in enumerate(commands):
        with (folder / f"log{i}").open("w") as log:
            processes.append(
                subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=log, env=environment)
            )
    try:
        processes[0].wait(600)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    rows = [json.loads(line) for line in (folder / "output/metrics.jsonl").read_text().splitlines()]
    return [row["train/collect_s"] / (1 + row["dropped/uniform_group"] / 8) for row in rows[1:]]


def main() -> None:
    """Print both times and their ratio."""
    updates = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    medians = []
    for actors in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            seconds = measure(Path(folder), actors, updates)
        medians.append(statistics.median(seconds))
        print(f"{actors} actor(s): {' '.join(f'{s:.2f}' for s in seconds)} s, median {medians[-1]:.2f} s")
    print(f"two against one: {medians[1] / medians[0]:.2f}")


if __name__ == "__main__":
    main()
