"""What a learner of the published policy takes of its host, update by update. Run it as a script.

python tests/benchmarks/bench_memory.py [toy|tiny|quarter|half|published] [--updates N] [--max_staleness N]

``python -m pirl_jax.learner`` on a CPU, and an actor in a process of its own that plays made-up observations
with the policy that is pushed: four episodes of two chunks, the eight points of an update. Of the learner's
process, after each update: resident memory, and the most it has been.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "libero"), str(TESTS / "benchmarks")]

from published import PARTS  # noqa: E402

from bridge.processes import free_port  # noqa: E402

SIZES = {"toy": 0.0, **PARTS}
"""Parts of the published layers; 0: a few thousand parameters."""

EPISODES, CHUNKS = 4, 2
GOAL_GIB, GOAL_GROWTH = 11, 0.01


def write_run(folder: Path, part: float, staleness: int, steps: int) -> Path:
    """Write a policy with random weights and the config of a run that starts from it."""
    import draccus
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.xvla import XVLAPolicy
    from published import part_of_published
    from tiny import build_tokenizer, tiny_policy_config, write_run_config

    settings = {"num_denoising_steps": steps, "tokenizer_name": str(build_tokenizer(folder / "tokenizer"))}
    if part:
        policy = part_of_published(part, device="cpu", push_to_hub=False, **settings)
    else:
        policy = tiny_policy_config(**settings)
    XVLAPolicy(policy).save_pretrained(folder / "base")
    path = write_run_config(folder, free_port(), policy=draccus.encode(policy, PreTrainedConfig))
    config = json.loads(path.read_text())
    algorithm = {
        "noise": {"level": 0.01},
        "rollout": {"episodes_per_update": EPISODES, "max_chunks": CHUNKS, "max_staleness": staleness},
        "push": {"dtype": "bfloat16"},
        # Rounding a random policy to bfloat16 alone is above 1 at so little noise.
        "watchdog": {"max_kl": 1000.0},
    }
    for name, values in algorithm.items():
        config["algorithm"].setdefault(name, {}).update(values)
    config |= {"policy": {"path": str(folder / "base")}, "steps": 10**6, "save_freq": 5}
    length = CHUNKS * policy.n_action_steps
    if part:
        libero = {"type": "libero", "task": "libero_object", "control_mode": "absolute"}
        pixels = {"observation_height": 256, "observation_width": 256}
        config["env"] = {**libero, **pixels, "episode_length": length}
    else:
        config["env"]["max_episode_steps"] = length
    path.write_text(json.dumps(config))
    return path


def memory_of(pid: int) -> dict[str, float]:
    """Return what a process holds (``VmRSS``), and the most it has held (``VmHWM``), in GiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if line.startswith(("VmRSS", "VmHWM")))
    return {name: int(value.split()[0]) / 2**20 for name, value in fields.items()}


def play(config: Path) -> None:
    """Be the actor, until killed."""
    from fake_actor import FakeActor

    FakeActor(config).episodes(10**6)


@contextmanager
def running(config: Path) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[int], None]]]:
    """Run learner and actor; yield the learner, and a function that waits for so many updates.

    Both are killed in the end. What they say is in ``log`` beside the config.
    """
    folder = config.parent
    metrics = folder / "output" / "metrics.jsonl"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "pirl_jax.learner", f"--config_path={config}"]
        learner = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        actor = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--play", str(config)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment | {"OMP_NUM_THREADS": "1"},
        )

        def wait_for(updates: int) -> None:
            while not metrics.exists() or metrics.read_text().count("\n") < updates:
                if learner.poll() is not None or actor.poll() is not None:
                    print((folder / "log").read_text(), file=sys.stderr)
                    raise RuntimeError("a process has ended; its log is above")
                time.sleep(0.2)

        try:
            yield learner, wait_for
        finally:
            for process in (actor, learner):
                process.kill()
                process.wait()


def measure(config: Path, updates: int) -> list[dict[str, float]]:
    """Run learner and actor for so many updates; return ``memory_of`` the learner after each."""
    found = []
    with running(config) as (learner, wait_for):
        for update in range(1, updates + 1):
            wait_for(update)
            found.append(memory_of(learner.pid))
            now, most = found[-1]["VmRSS"], found[-1]["VmHWM"]
            print(f"update {update:3}: {now:6.2f} GiB, at most {most:6.2f}", flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("size", nargs="?", default="tiny")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--max_staleness", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2, help="of denoising")
    parser.add_argument("--play", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        play(options.play)
        return
    with tempfile.TemporaryDirectory(prefix="pirl-memory-") as folder:
        config = write_run(Path(folder), SIZES[options.size], options.max_staleness, options.steps)
        found = measure(config, options.updates)
    first, last = found[min(1, len(found) - 1)]["VmHWM"], found[-1]["VmHWM"]
    print(
        f"at most {last:.2f} GiB (goal at the published size: {GOAL_GIB}); grown since the second update by "
        f"{last / first - 1:.1%} (goal: {GOAL_GROWTH:.0%})"
    )


if __name__ == "__main__":
    main()
