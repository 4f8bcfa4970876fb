"""In what an evaluation plays other episodes than the run that made its policy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridge.evaluate.settings import Settings
from bridge.libero.suites import SUITES
from pirl_jax.files import read_json
from pirl_jax.run_folder.layout import TRAIN_CONFIG

_NOT_KNOWN = (ValueError, KeyError, TypeError, AttributeError)
"""What a checkpoint without such a run, or with another's config, leads to."""


def unlike_training(settings: Settings, suites: Iterable[str]) -> list[str]:
    """Say what differs, and the option that plays the run's; nothing for a policy that no RL run has made.

    Both are asked for: other lengths are what papers report, and what two evaluations need in common.

    Args:
        settings: Of the evaluation.
        suites: That it plays.
    """
    try:
        env = _played(settings.checkpoint.path)
        mode, length = env["control_mode"], env["episode_length"]
    except _NOT_KNOWN:
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
        env = _played(checkpoint)
        suites, tasks = [name.strip() for name in env["task"].split(",")], env.get("task_ids")
        numbers = f" (tasks {', '.join(map(str, tasks))})" if tasks else ""
    except _NOT_KNOWN:
        return None
    return " and ".join(suites) + numbers


def _played(checkpoint: Path) -> dict[str, Any]:
    """Return the ``env`` of the RL run on LIBERO that made a policy; one of ``_NOT_KNOWN`` if none has."""
    config = read_json(checkpoint / TRAIN_CONFIG)
    if config["env"]["type"] != "libero" or not config.get("algorithm"):
        raise ValueError(f"{checkpoint} is of no RL run on LIBERO.")
    return config["env"]
