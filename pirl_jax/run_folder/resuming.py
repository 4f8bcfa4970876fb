"""How a command line says that a run goes on from a checkpoint, in whichever way it says it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pirl_jax.run_folder.layout import TRAIN_CONFIG

CONFIG, RESUME = "--config_path=", "--resume="
RESUMES = f"{RESUME}true"
_YES = ("true", "yes", "on", "y", "1")
"""As YAML has it, by which LeRobot's parser reads a truth value."""


def plainly(arguments: Iterable[str]) -> list[str]:
    """Return a command line that says ``--resume=true`` if it resumes, and so in no other spelling.

    It may say ``--resume=True`` or ``--resume yes``, or name a config that a resumed run has saved, in which
    it is on.
    """
    said = joined(arguments)
    plain = [RESUMES if _is_yes(argument) else argument for argument in said]
    if not any(argument.startswith(RESUME) for argument in said) and _is_on_in(said):
        plain.append(RESUMES)
    return plain


def joined(arguments: Iterable[str]) -> list[str]:
    """Return a command line in which every ``--name value`` is ``--name=value``, which LeRobot looks for."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and not argument.startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _is_yes(argument: str) -> bool:
    return argument.startswith(RESUME) and argument.removeprefix(RESUME).lower() in _YES


def _is_on_in(arguments: Iterable[str]) -> bool:
    """Tell whether the config file resumes; False where it cannot be read, for which others have words."""
    given = [argument.removeprefix(CONFIG) for argument in arguments if argument.startswith(CONFIG)]
    if not given or not given[-1]:
        return False
    path = Path(given[-1])
    try:
        config = json.loads((path / TRAIN_CONFIG if path.is_dir() else path).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("resume") is True
