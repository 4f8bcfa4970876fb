"""What config file and command line say of the policy, brought to LeRobot's parser so that it is obeyed."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from lerobot.configs import parser
from lerobot.configs.train import TRAIN_CONFIG_NAME, TrainPipelineConfig

from bridge.plugin import parsing

log = logging.getLogger(__name__)

_POLICY = "policy"
_HUB_S = 10.0


def prepare() -> None:
    """Make all count that stands beside a config file's ``policy.path``, and errors one line; call before the
    parser.

    LeRobot reads the file after the command line. Until it knows of the path it takes ``--policy.x=y`` for an
    option of some policy type and refuses it; and of what the file says beside the path it drops lists,
    objects and nulls.

    Raises:
        ValueError: There is no such file, or no such checkpoint.
    """
    parsing.say_in_one_line()
    _check_file(parser.parse_arg("config_path"))
    section = of_file()
    check_folder(parser.parse_arg(f"{_POLICY}.{parser.PATH_KEY}") or section.get(parser.PATH_KEY))
    if parser.PATH_KEY not in section:
        return
    file = str(parser.parse_arg("config_path"))
    Path(parser.extract_path_fields_from_config(file, [_POLICY])).unlink()  # what it remembers is wanted
    sys.argv[1:1] = [
        f"--{_POLICY}.{name}={json.dumps(value)}"
        for name, value in section.items()
        if value is None or isinstance(value, (list, dict))
    ]


def check_folder(path: str | None) -> None:
    """Check a checkpoint's folder, which LeRobot takes for a model of the hub if there is none.

    Raises:
        ValueError: There is none, and the hub, whose models are ``name`` or ``owner/name``, has none either.
    """
    if path is None or Path(path).is_dir():
        return
    if Path(path).is_file():
        raise ValueError(f"policy.path={path} is a file; give the folder around it, as …/pretrained_model.")
    if path.count("/") > 1 or path.startswith((".", "/", "~")):
        raise ValueError(
            f"there is no folder policy.path={path}; give a checkpoint's, as …/last/pretrained_model."
        )
    if reason := not_on_hub(path):
        raise ValueError(
            f"there is no folder policy.path={path}, and the Hugging Face Hub does not provide it "
            f"({reason}). Check the name and the connection."
        )


def not_on_hub(repo_id: str, revision: str | None = None) -> str | None:
    """Say why a model cannot be had of the hub, by one request; None if it can, or was downloaded before.

    LeRobot's own download tries for half a minute before it says that there is no connection.
    """
    try:
        if isinstance(try_to_load_from_cache(repo_id, "config.json", revision=revision), str):
            return None
        HfApi().model_info(repo_id, revision=revision, timeout=_HUB_S)
    except Exception as error:  # whatever its HTTP client raises
        return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    return None


def _check_file(path: str | None) -> None:
    file = Path(path or "")
    if file.suffix != ".json":
        return
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"config_path={file} is no JSON: {error}.") from None
    except OSError as error:
        raise ValueError(f"config_path={file} cannot be read: {error.strerror}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"config_path={file} holds no JSON object.")


def of_file() -> dict[str, Any]:
    """Return the ``policy`` section of the config file; empty where there is none that can be read."""
    file = Path(parser.parse_arg("config_path") or "")
    if file.is_dir():
        file /= TRAIN_CONFIG_NAME
    try:
        content = json.loads(file.read_text()) if file.suffix == ".json" else None
    except (OSError, ValueError):  # for the parser to say
        return {}
    section = content.get(_POLICY) if isinstance(content, dict) else None
    return section if isinstance(section, dict) else {}


def of_command_line() -> dict[str, str]:
    """Return what ``--policy.…`` says, by the name of the field and without what is nested in it."""
    words = parser.get_cli_overrides(_POLICY) or []
    pairs = (word.removeprefix("--").partition("=") for word in words if word.startswith("--"))
    return {name: value for name, _, value in pairs}


def push_is_wanted() -> bool:
    """Tell whether file or command line ask to push the policy to the hub.

    LeRobot's ``policy.push_to_hub`` is true by default, and a base checkpoint may name the repository that it
    was pushed to itself: neither is this run's wish.
    """
    said = of_file() | of_command_line()
    return str(said.get("push_to_hub", said.get("repo_id") is not None)).lower() == "true"


def check_push(cfg: TrainPipelineConfig) -> None:
    """Say at a run's start what would keep its policy from the hub at its end.

    Raises:
        ValueError: There will be nothing to push.
    """
    if cfg.policy is None or not cfg.policy.push_to_hub:
        return
    if not cfg.save_checkpoint:
        raise ValueError(
            "policy.push_to_hub=true pushes the last checkpoint, and save_checkpoint=false writes none. "
            "Change one of them."
        )
    if get_token() is None:
        log.warning(
            "policy.push_to_hub=true, and there is no token of the Hugging Face Hub. The run needs none: "
            "log in (hf auth login) before it ends, or push after it (pirl card <output_dir> --push)."
        )


@contextmanager
def pushed_if_asked(cfg: TrainPipelineConfig) -> Iterator[None]:
    """Within it LeRobot validates a run of ours, which pushes its policy only if someone has asked for it."""
    wanted = push_is_wanted()
    if cfg.policy is not None:
        cfg.policy.push_to_hub = wanted
    # Where it loads policy.path, it reads them again.
    sys.argv.append(f"--{_POLICY}.push_to_hub={str(wanted).lower()}")
    try:
        yield
        if cfg.policy is not None and "repo_id" not in of_file() | of_command_line():
            cfg.policy.repo_id = None  # else it is the base's
    except (OSError, ValueError) as error:
        path = parser.get_path_arg(_POLICY)
        if isinstance(error, json.JSONDecodeError) and path is not None:
            raise ValueError(f"policy.path={path} has a damaged config.json: {error}.") from None
        if not isinstance(error, (LocalEntryNotFoundError, HFValidationError)):
            raise
        raise ValueError(
            f"there is no folder policy.path={path}, and the Hugging Face Hub does not provide it "
            f"({str(error).splitlines()[0]}) Check the name and the connection."
        ) from None
    finally:
        sys.argv.pop()
