"""What the command line of a resumed run has changed of the run that was saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot.configs.train import TRAIN_CONFIG_NAME
from lerobot.utils.constants import PRETRAINED_MODEL_DIR

from pirl_jax.run_folder.layout import CHECKPOINTS
from pirl_jax.trees import leaves

_NOT_COMPARED = ("resume", "checkpoint_path", "output_dir", "policy.input_features", "policy.output_features")
"""They differ in every resumed run, or are derived."""
_WORDS = ("algorithm.", "env.train_init_states", "env.eval_init_states", "policy.dtype", "policy.action_mode")
"""Settings whose strings are no names or paths."""
UNSET = "unset"


def check_place(cfg: Any) -> None:
    """Refuse to go on with one run's checkpoint in the folder of another, whose checkpoints it would replace.

    Args:
        cfg: a training config of LeRobot's.

    Raises:
        ValueError: The output folder has checkpoints, and the one to resume from is none of them.
    """
    if not cfg.resume:
        return
    checkpoint, there = Path(cfg.checkpoint_path).resolve(), Path(cfg.output_dir) / CHECKPOINTS
    if there.exists() and checkpoint.parent != there.resolve():
        raise ValueError(
            f"{cfg.checkpoint_path} is no checkpoint of the run in output_dir={cfg.output_dir}, and going on "
            f"there would replace that run's. Give --output_dir={checkpoint.parent.parent}, where it lies, "
            "or a new folder."
        )


def changes(cfg: Any) -> dict[str, tuple[Any, Any]]:
    """Return the settings of a resumed run that are not the saved run's: dotted name → (saved, now).

    Args:
        cfg: a validated training config of LeRobot's with ``resume=true``.
    """
    file = Path(cfg.checkpoint_path) / PRETRAINED_MODEL_DIR / TRAIN_CONFIG_NAME
    saved = _settings(json.loads(file.read_text()))
    now = _settings(json.loads(json.dumps(cfg.to_dict(), default=str)))
    both = {name: (saved.get(name, UNSET), now.get(name, UNSET)) for name in saved | now}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1] and _is_setting(name, *pair)}


def _is_setting(name: str, saved: Any, now: Any) -> bool:
    if name.startswith(_NOT_COMPARED):
        return False
    if UNSET in (saved, now):  # of another LeRobot's fields nobody has set either
        return name.startswith("algorithm.")
    # Other strings are names and paths, which an export writes anew.
    return name.startswith(_WORDS) or not (isinstance(saved, str) or isinstance(now, str))


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted name → value."""
    return {".".join(path): value for path, value in leaves(config)}
