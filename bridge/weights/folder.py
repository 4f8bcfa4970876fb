"""X-VLA checkpoint folders: LeRobot's (``model.safetensors``) and Orbax (``params/``).

Both carry ``config.json`` and the processors' files, so a policy survives the way there and back.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from bridge.plugin.command_line import not_on_hub
from bridge.weights.beside import CONFIG, carry_along
from bridge.weights.consumers import prepare_for
from bridge.weights.formats import Consumer, WeightsError, check_destination, local_folder
from bridge.weights.state_dict import (
    SafetensorsFile,
    Tree,
    check_params,
    params_from_state,
    write_safetensors,
)
from pirl_jax.run_folder.layout import MODEL, TRAINING_STATE
from pirl_jax.trees import store
from pirl_jax.xvla.config import XVLAConfig

PARAMS = "params"

_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.md"]
_HUB_IGNORED = ["checkpoints/*", "training_state/*"]


def load_params(source: Path | str, revision: str | None = None) -> tuple[XVLAConfig, Tree]:
    """Read an X-VLA checkpoint.

    Args:
        source: A LeRobot or Orbax checkpoint folder, a training checkpoint holding ``pretrained_model/``, or
            a model id on the Hugging Face hub.
        revision: Hub revision.

    Returns:
        The architecture and the parameter tree (NumPy, dtypes as stored).

    Raises:
        WeightsError: The checkpoint is absent, damaged, or does not fit its own config.
    """
    folder = resolve(source, revision)
    config = read_config(folder)
    if format_of(folder) == "lerobot":
        return config, params_from_state(SafetensorsFile(folder / MODEL), config)
    try:
        stored = store.load(folder / PARAMS)
    except Exception as error:  # tensorstore raises what it likes on damaged files
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{folder / PARAMS} is damaged ({reason}). Copy or convert it again.") from error
    return config, check_params(stored, config)


def save_params(
    params: Tree,
    source: Path | str,
    out: Path | str,
    to: str = "lerobot",
    overwrite: bool = False,
    consumer: Consumer | None = None,
) -> None:
    """Write a checkpoint folder, atomically: it appears complete or not at all.

    Args:
        params: Complete parameter tree.
        source: Folder whose ``config.json``, processor files and tokenizer are carried along.
        out: The new folder.
        to: ``"lerobot"`` for a folder that ``XVLAPolicy.from_pretrained`` loads, ``"orbax"`` for ours.
        overwrite: Replace ``out`` if it is a checkpoint.
        consumer: Whom its processors are for (``bridge.weights.consumers``); None: as in ``source``.

    Raises:
        WeightsError: ``params`` does not fit the config, ``out`` exists, or ``source`` has no processors to
            make a consumer's of.
    """
    source, out = Path(source), Path(out).absolute()
    check_params(params, read_config(source))
    with _new_folder(out, overwrite) as folder:
        carry_along(source, folder, out)
        if consumer is not None:
            prepare_for(folder, consumer)
        if to == "lerobot":
            write_safetensors(folder / MODEL, params)
        else:
            store.save(folder / PARAMS, params)


def resolve(source: Path | str, revision: str | None = None) -> Path:
    """Return the local folder of a checkpoint, downloading it if ``source`` is a hub id.

    Raises:
        WeightsError: There is neither such a folder nor such a model within reach.
    """
    if (folder := local_folder(source)) is not None:
        return folder
    try:
        if reason := not_on_hub(str(source), revision):
            raise OSError(reason)
        return Path(
            snapshot_download(
                str(source), revision=revision, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_IGNORED
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise WeightsError(
            f"there is no folder {source}, and the Hugging Face hub cannot provide it ({reason}). Check "
            "the name and the connection, or download the model elsewhere and give its folder."
        ) from error


def read_config(folder: Path) -> XVLAConfig:
    """Read a checkpoint folder's architecture.

    Raises:
        WeightsError: ``config.json`` is missing, unreadable or describes no X-VLA.
    """
    file = folder / CONFIG
    try:
        return XVLAConfig.from_dict(json.loads(file.read_text()))
    except FileNotFoundError as error:
        raise WeightsError(f"{file} is missing; give a folder that LeRobot saved a policy to.") from error
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise WeightsError(f"{file} does not describe an X-VLA policy: {error}") from error


def format_of(folder: Path) -> str:
    """Return ``"lerobot"`` or ``"orbax"``.

    Raises:
        WeightsError: The folder holds neither kind of weights.
    """
    if (folder / MODEL).exists():
        return "lerobot"
    if (folder / PARAMS).is_dir():
        return "orbax"
    if (folder.parent / TRAINING_STATE).is_dir():
        raise WeightsError(
            f"{folder} has no {MODEL}: of this checkpoint only what had changed is kept. "
            f"pirl-convert {folder.parent.parent.parent} DST --step={folder.parent.name} writes its weights."
        )
    raise WeightsError(
        f"{folder} holds neither {MODEL} (LeRobot) nor {PARAMS}/ (Orbax): it is no X-VLA checkpoint."
    )


@contextmanager
def _new_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a folder beside ``out`` that becomes ``out`` at the end, or vanishes on any failure."""
    check_destination(out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    displaced = out.with_name(f".{out.name}.{os.getpid()}.old")
    try:
        building.mkdir()
        yield building
        if out.exists():
            os.replace(out, displaced)
        os.replace(building, out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        if displaced.exists() and not out.exists():
            os.replace(displaced, out)
        raise
    shutil.rmtree(displaced, ignore_errors=True)
