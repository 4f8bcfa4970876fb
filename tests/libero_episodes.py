"""Settings and outcomes without a simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge.evaluate.results import TaskEpisode
from bridge.evaluate.run import Finished
from bridge.evaluate.settings import Checkpoint, Group, Settings

Outcomes = Mapping[str, Sequence[Sequence[bool]]]
"""Success by suite, task and episode."""


def identity(settings: Settings, **changes: Any) -> dict[str, Any]:
    """Return an identity as ``Settings.identity`` would on a machine with development assets."""
    return {
        "checkpoint": settings.checkpoint.digest,
        "n_episodes": settings.n_episodes,
        "seed": settings.seed,
        "control_mode": settings.control_mode,
        "episode_length": settings.episode_length,
        "batch_size": settings.batch_size,
        "tasks_per_process": settings.tasks_per_process,
        "lerobot_eval_arguments": list(settings.arguments),
        "libero": {"bddl_files": "sha-bddl", "init_states": "sha-init"},
        "assets": {"kind": "development", "revision": None, "reason": "not downloaded from the hub"},
        "versions": {"lerobot": "0.6.1", "torch": "2.11.0"},
    } | changes


def settings(name: str = "a", **values: Any) -> Settings:
    """Return settings of a checkpoint that does not exist."""
    checkpoint = Checkpoint(Path("/runs") / name / "pretrained_model", "xvla", f"sha-{name}")
    return Settings.make(checkpoint, **({"n_episodes": 4} | values))


def results(of: Settings, outcomes: Outcomes) -> list[Finished]:
    """Return one group a task, each of 10 s."""
    finished = []
    for suite, tasks in outcomes.items():
        for task_id, successes in enumerate(tasks):
            episodes = tuple(
                TaskEpisode(suite, task_id, i, of.init_state(i), of.seed + i, success)
                for i, success in enumerate(successes)
            )
            finished.append(Finished(Group(suite, (task_id,)), episodes, "lerobot-eval …", 10.0))
    return finished
