"""A LeRobotDataset, opened; what is wrong with it in one line instead of a library's traceback."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import cast

from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.factory import make_dataset

from bridge.datasets.unfinished import recording
from pirl_jax.files import read_json

INFO = Path("meta") / "info.json"


def open_dataset(cfg: TrainPipelineConfig) -> LeRobotDataset:
    """Open ``cfg.dataset`` as LeRobot does, with the action chunks of ``cfg.policy``.

    Statistics are not needed: X-VLA takes images, states and actions as they are.

    Raises:
        ValueError: It is not there, of another format, or damaged; says which and what to do.
    """
    wanted = cfg.dataset
    name = f"dataset.repo_id={wanted.repo_id}, dataset.root={wanted.root}"
    if wanted.root is not None:
        _check_folder(Path(wanted.root), wanted.repo_id)
    own = copy.copy(cfg)
    own.dataset = dataclasses.replace(wanted, use_imagenet_stats=False)
    try:
        return cast(LeRobotDataset, make_dataset(own))
    except Exception as error:  # LeRobot's, the hub's, pyarrow's and httpx's
        said = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        where = (
            "what is missing in the folder is looked for on the Hugging Face Hub"
            if wanted.root
            else ("give dataset.root if it is a folder here")
        )
        raise ValueError(f"{name} cannot be opened ({type(error).__name__}: {said}); {where}.") from error


def _check_folder(folder: Path, repo_id: str) -> None:
    """Check what LeRobot would go to the hub for, or stumble over."""
    if recording(folder).exists():
        raise ValueError(
            f"dataset.root={folder} is not whole: its recording is under way or was stopped. Its command "
            f"goes on with it; to take what is there, remove {recording(folder)}."
        )
    if not (folder / INFO).is_file():
        raise ValueError(
            f"dataset.root={folder} is no LeRobotDataset: there is no {folder / INFO}. Give the folder that "
            "holds meta/ and data/."
        )
    info = read_json(folder / INFO)
    version = str(info.get("codebase_version"))
    if not version.startswith("v3."):
        raise ValueError(
            f"dataset.root={folder} is of format {version}, and LeRobot reads v3.x. Convert it: "
            f"python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id={repo_id} --root={folder}"
        )
    for key, feature in info.get("features", {}).items():
        if feature.get("dtype") in ("image", "video") and not feature.get("names"):
            raise ValueError(
                f"{folder / INFO} does not say in which order {key} has height, width and channels. Set "
                f'features["{key}"]["names"], e.g. to ["height", "width", "channels"].'
            )
