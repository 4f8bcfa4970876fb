"""What a launch says of a run that is done: where everything is, and what comes next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pirl_jax.run_folder.layout import CHECKPOINTS, LAST, METRICS, PRETRAINED_MODEL, TRAIN_CONFIG, last_policy

_EPISODES = 50
"""Of each task: LIBERO has so many initial states."""


def farewell(output_dir: Path, updates: int) -> str:
    """Return the last lines of a run that is done.

    Args:
        output_dir: Of the run.
        updates: Of the whole run.
    """
    policy = last_policy(output_dir)
    where = policy if policy.exists() else output_dir
    lines = [
        f"finished: all {updates} updates; the policy is in {where}",
        f"metrics, a line an update: {output_dir / METRICS}",
    ]
    if evaluation := _evaluation(output_dir):
        lines.append(f"evaluate it: {evaluation}")
    return "\n".join(lines)


def all_done(updates: int, output_dir: Path) -> str:
    """Return the lines of a command whose run was done before."""
    return (
        f"{farewell(output_dir, updates)}\n"
        f"There is nothing left to do. To train on, give more updates than these: --steps=N"
    )


def _evaluation(output_dir: Path) -> str | None:
    """Return the command that evaluates a run of LIBERO's on what it has trained on; None for others."""
    last = output_dir / CHECKPOINTS / LAST
    try:
        env: Mapping[str, Any] = json.loads((last / PRETRAINED_MODEL / TRAIN_CONFIG).read_text())["env"]
        if env["type"] != "libero":
            return None
        tasks = [f"--tasks={','.join(map(str, env['task_ids']))}"] if env.get("task_ids") else []
        suites = f"--suites={env['task']}"
        names = ("episode_length", "control_mode")
        tasks += [f"--{name}={env[name]}" for name in names if env.get(name) is not None]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return shlex.join(["pirl-eval", str(last), suites, *tasks, f"--n_episodes={_EPISODES}"])
