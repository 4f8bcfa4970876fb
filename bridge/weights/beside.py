"""What lies beside the weights in a LeRobot folder: its config, its processors and its tokenizer."""

from __future__ import annotations

import logging
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from bridge.plugin.tokenizer import TOKENIZER, is_path
from bridge.weights.formats import CONFIG
from pirl_jax.files import read_json, write_json
from pirl_jax.run_folder.layout import MODEL

PREPROCESSOR = "policy_preprocessor.json"

logger = logging.getLogger(__name__)


def carry_along(source: Path, folder: Path, final: Path) -> None:
    """Copy everything but the weights, and the tokenizer from wherever it lies.

    Args:
        source: LeRobot's or our folder.
        folder: The new one, which is being built.
        final: Where it will lie: what names its tokenizer names it there.
    """
    for path in source.iterdir():
        if path.is_file() and path.name != MODEL and not path.name.startswith("."):
            shutil.copyfile(path, folder / path.name)
    if (source / TOKENIZER).is_dir():
        shutil.copytree(source / TOKENIZER, folder / TOKENIZER)
        repoint_tokenizer(folder, final / TOKENIZER)
    elif (name := tokenizer_name(source)) is not None:
        carry_tokenizer(name, folder, final)


def carry_tokenizer(name: str, folder: Path, final: Path) -> None:
    """Write a local tokenizer into a folder that is being built; one of the hub is found from anywhere.

    Raises:
        OSError: ``name`` is a folder without a tokenizer.
    """
    tokenizer = _local_tokenizer(name)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder / TOKENIZER)
        repoint_tokenizer(folder, final / TOKENIZER)
    elif is_path(name):
        logger.warning(
            "The tokenizer %s is not there: %s is without it, and will not load for text. Put it back and "
            "write the folder again.",
            name,
            final,
        )


def tokenizer_name(folder: Path) -> str | None:
    """Return the folder or hub id that a folder's preprocessor, else its config, loads its tokenizer from."""
    file = folder / PREPROCESSOR
    steps = _steps(read_json(file)) if file.is_file() else []
    named = [name for step in steps if (name := step.get("config", {}).get("tokenizer_name"))]
    file = folder / CONFIG
    return named[0] if named else (read_json(file).get("tokenizer_name") if file.is_file() else None)


def change_config(folder: Path, **changes: Any) -> None:
    """Write other values into a folder's ``config.json``."""
    write_json(folder / CONFIG, read_json(folder / CONFIG) | changes)


def repoint_tokenizer(folder: Path, tokenizer: Path) -> None:
    """Make a LeRobot folder's config and preprocessor load their tokenizer from a path.

    LeRobot takes a tokenizer's name relative to the working directory, so the path has to be absolute, and
    has to be written anew wherever the folder moves to (``bridge.weights.moved``).
    """
    name_tokenizer(folder, str(tokenizer.absolute()))


def name_tokenizer(folder: Path, name: str) -> None:
    """Make a LeRobot folder's config and preprocessor load their tokenizer by a hub id or absolute path."""
    change_config(folder, tokenizer_name=name)
    file = folder / PREPROCESSOR
    if file.is_file():
        pipeline = read_json(file)
        for step in _steps(pipeline):
            step["config"]["tokenizer_name"] = name
        write_json(file, pipeline)


def _steps(preprocessor: dict[str, Any]) -> list[dict[str, Any]]:
    steps = preprocessor.get("steps", [])
    return [step for step in steps if step.get("registry_name") == "tokenizer_processor"]


@cache
def _local_tokenizer(name: str) -> Any:
    """Return a local folder's tokenizer, None if it is none.

    Read once: it may lie in an earlier checkpoint of the run that exports it, which goes.
    """
    if not Path(name).is_dir():
        return None
    from transformers import AutoTokenizer  # takes seconds to import

    return AutoTokenizer.from_pretrained(name)
