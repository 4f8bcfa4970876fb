"""PI-RL as a user would start it: one learner and two of LeRobot's actors, each a process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.processes import Command, free_port
from pirl_jax.training.metrics import read

ACTORS = 2


@dataclass(frozen=True)
class Training:
    """What a finished run leaves."""

    metrics: list[dict[str, Any]]
    """Rows of ``metrics.jsonl``."""
    policy: Path
    """The last export."""
    actor_command: str


def train(
    config: Path,
    start: Path,
    folder: Path,
    seed: int,
    arguments: Sequence[str] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> Training:
    """Run until the learner has done its updates; logs go to ``folder/logs``, the run to ``folder/train``.

    Args:
        config: Of learner and actors.
        start: Policy folder to start from.
        folder: Made if missing.
        seed: Of learner and actors.
        arguments: Further ones, as ``--algorithm.noise.mode=flow_sde``.
        progress: Told of every new update in words.

    Raises:
        RuntimeError: A process failed.
    """
    shared = [
        f"--config_path={config}",
        f"--policy.path={start}",
        f"--algorithm.actor_learner_config.learner_port={free_port()}",
        f"--seed={seed}",
        *arguments,
    ]
    output_dir, logs = folder / "train", folder / "logs"
    with ExitStack() as stack:
        learner_arguments = [*shared, f"--output_dir={output_dir}"]
        learner = stack.enter_context(Command("pirl_jax.learner", learner_arguments, logs / "learner.log"))
        actors = []
        for i in range(ACTORS):
            actor_arguments = [
                *shared,
                "--env.discover_packages_path=bridge.plugin",
                f"--env.actor_id={i}",
                f"--output_dir={folder / f'actor{i}'}",
            ]
            command = Command("lerobot.rl.actor", actor_arguments, logs / f"actor{i}.log", threads=1)
            actors.append(stack.enter_context(command))
        while learner.running:
            time.sleep(2)
            for actor in actors:
                actor.check(must_run=True)
            rows = read(output_dir / "metrics.jsonl")
            if rows:
                row = rows[-1]
                progress(
                    f"update {row['step']}, success of the noisy policy {row['train/success_rate']:.0%}, "
                    f"KL {row['train/approx_kl']:.3f}, "
                    f"explained variance {row['train/explained_variance']:.2f}"
                )
        learner.check()
    last = output_dir / "checkpoints" / "last" / "pretrained_model"
    return Training(read(output_dir / "metrics.jsonl"), last, str(actors[0]))
