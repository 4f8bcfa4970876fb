"""PI-RL as ``pirl-launch`` starts it: one learner and two of LeRobot's actors, each a process."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.launch.actor import Actor
from bridge.launch.plan import prepare
from bridge.launch.supervisor import Supervisor
from bridge.processes import free_port
from pirl_jax.run_folder.layout import METRICS, last_policy
from pirl_jax.training.metrics import read, updates

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
    """Run until the learner has done its updates; the run goes to ``folder/train``, logs to
    ``folder/train.launch``.

    Args:
        config: Of learner and actors.
        start: Policy folder to start from.
        folder: Made if missing.
        seed: Of learner and actors.
        arguments: Further ones, as ``--algorithm.noise.mode=flow_sde``.
        progress: Told in words of every update and of what happens to the processes.

    Raises:
        RuntimeError: The run failed.
    """
    arguments = [
        f"--config_path={config}",
        f"--policy.path={start}",
        f"--algorithm.actor_learner_config.learner_port={free_port()}",
        f"--seed={seed}",
        f"--output_dir={folder / 'train'}",
        f"--actors={ACTORS}",
        *arguments,
    ]
    try:
        plan = prepare(arguments)
    except ValueError as error:
        raise RuntimeError(str(error)) from error
    metrics = plan.output_dir / METRICS

    def show(supervisor: Supervisor) -> None:
        if rows := updates(read(metrics)):
            row = rows[-1]
            progress(
                f"update {row['step']}, success of the noisy policy {row['train/success_rate']:.0%}, "
                f"KL {row['train/approx_kl']:.3f}, "
                f"explained variance {row['train/explained_variance']:.2f}"
            )

    outcome = Supervisor(plan, progress, poll_s=2.0).run(show)
    if outcome.end != "finished":
        raise RuntimeError(outcome.line)
    actor = [*plan.actor, "--env.actor_id=0", f"--output_dir={plan.folder / 'actor0' / '01'}"]
    command = shlex.join(["python", "-m", Actor.module, *actor])
    return Training(read(metrics), last_policy(plan.output_dir), command)
