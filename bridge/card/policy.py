"""What a policy's folder and the run around it say of a policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pirl_jax.files import read_json
from pirl_jax.run_folder.layout import (
    CHECKPOINTS,
    LAST,
    METRICS,
    PRETRAINED_MODEL,
    TRAIN_CONFIG,
    TRAINING_STATE,
    read_about,
)
from pirl_jax.training.metrics import read

CONFIG = "config.json"
APACHE = "apache-2.0"
"""LeRobot's, where a policy names no licence."""


@dataclass(frozen=True)
class Policy:
    """A LeRobot policy, and where it comes from as far as that is known."""

    folder: Path
    """With ``config.json`` and processors."""
    config: dict[str, Any]
    """LeRobot's of the policy."""
    settings: dict[str, Any]
    """Of the run that made it (``train_config.json``); empty: unknown."""
    run: Path | None
    """The run's folder; None: the policy lies in none."""
    step: int | None
    """Updates, or supervised steps, that it has had in its run."""
    base: str | None
    """Folder or hub id that its run began with."""
    rows: tuple[dict[str, Any], ...]
    """Of the run's ``metrics.jsonl``, up to the policy."""

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read a policy's folder, the checkpoint around it, or the last checkpoint of a run's folder.

        Raises:
            ValueError: There is none; says what to give.
        """
        folder = _folder(path)
        checkpoint = folder.parent if (folder.parent / TRAINING_STATE).is_dir() else None
        run = checkpoint.parent.parent if checkpoint and checkpoint.parent.name == CHECKPOINTS else None
        about = {} if checkpoint is None else read_about(checkpoint)
        file, step = folder / TRAIN_CONFIG, about.get("step")
        rows = [] if run is None else read(run / METRICS)
        return cls(
            folder,
            read_json(folder / CONFIG),
            read_json(file) if file.is_file() else {},
            run,
            step,
            about.get("base"),
            tuple(row for row in rows if step is not None and row["step"] <= step),
        )

    @property
    def name(self) -> str:
        """Of the run, else of the folder."""
        return (self.run or self.folder).name

    @property
    def algorithm(self) -> dict[str, Any]:
        """The section of a run that was reinforcement learning; else empty."""
        return self.settings.get("algorithm") or {}

    @property
    def repo_id(self) -> str | None:
        """Where its run was to push it; of other runs the config may name the base's repository."""
        section = self.settings.get("policy") or {}
        return section.get("repo_id") if section.get("push_to_hub") else None

    @property
    def hub_base(self) -> str | None:
        """What its run began with, if that is a model of the hub."""
        named = self.base or ""
        on_hub = named.count("/") == 1 and not named.startswith((".", "/", "~"))
        return named if on_hub else None


def _folder(path: Path) -> Path:
    """Return the folder of a policy's ``config.json``; not through ``last``, which moves."""
    tried = (path, path / PRETRAINED_MODEL, path / CHECKPOINTS / LAST / PRETRAINED_MODEL)
    for folder in tried:
        if (folder / CONFIG).is_file():
            return folder.resolve()
    raise ValueError(
        f"{path} is no policy: there is no {CONFIG} in it. Give a checkpoint (…/checkpoints/last), or the "
        "output_dir of a run that has one."
    )
