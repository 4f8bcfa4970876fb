"""In what an evaluation plays other episodes than the run that made its policy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bridge.evaluate.settings import Settings
from bridge.libero.suites import SUITES
from pirl_jax.files import read_json
from pirl_jax.run_folder.layout import TRAIN_CONFIG


def unlike_training(settings: Settings, suites: Iterable[str]) -> list[str]:
    """Say what differs, and the option that plays the run's; nothing for a policy that no RL run has made.

    Both are asked for: other lengths are what papers report, and what two evaluations need in common.

    Args:
        settings: Of the evaluation.
        suites: That it plays.
    """
    try:
        config = read_json(settings.checkpoint.path / TRAIN_CONFIG)
        env = config["env"]
        if env["type"] != "libero" or not config.get("algorithm"):
            return []
        mode, length = env["control_mode"], env["episode_length"]
    except (ValueError, KeyError, TypeError):
        return []
    said = []
    if mode != settings.control_mode:
        said.append(
            f"control is {settings.control_mode} here, and was {mode} in training: --control_mode={mode}"
        )
    for suite in suites:
        here, there = settings.horizon(suite), length or SUITES[suite].max_steps
        if here != there:
            said.append(
                f"episodes of {suite} end after {here} steps here, and after {there} in training: "
                f"--episode_length={there}"
            )
    return said


def trained_on(checkpoint: Path) -> str | None:
    """Return the suites, and tasks of them, that a policy's RL run played; None where that is not known."""
    try:
        config = read_json(checkpoint / TRAIN_CONFIG)
        env = config["env"]
        if env["type"] != "libero" or not config.get("algorithm"):
            return None
        suites, tasks = [name.strip() for name in env["task"].split(",")], env.get("task_ids")
        numbers = f" (tasks {', '.join(map(str, tasks))})" if tasks else ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return " and ".join(suites) + numbers
