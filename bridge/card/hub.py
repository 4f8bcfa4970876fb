"""A policy onto the Hugging Face Hub: its files, a tokenizer that is found from there, and its card."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import disable_progress_bars

from bridge.card.policy import Policy
from bridge.card.written import write_card
from bridge.plugin.tokenizer import TOKENIZER, is_path
from bridge.weights.beside import name_tokenizer, tokenizer_name
from pirl_jax.files import read_json, write_json
from pirl_jax.run_folder.layout import MODEL, TRAIN_CONFIG

logger = logging.getLogger(__name__)

_MESSAGE = "Upload policy weights, train config and readme"
"""LeRobot's."""


def push(policy: Policy, repo_id: str, private: bool | None = None, **card: Any) -> str:
    """Make a repository unless it is there, and put a policy into it by one commit.

    Args:
        policy: With all of its weights.
        repo_id: As ``me/robot``; without a name before it, the token's.
        private: Of a repository that is made; None: as the hub has it for whose it is.
        card: What ``write_card`` takes.

    Returns:
        The address.

    Raises:
        ValueError: The policy is not complete, or the hub does not take it; says why in one line.
    """
    _check(policy)
    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi()
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory(prefix="pirl-push-") as folder:
            stage(policy, repo_id, Path(folder), **card)
            done: CommitInfo = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=_MESSAGE)
    except Exception as error:  # whatever the hub's client and its HTTP library raise
        raise ValueError(f"{policy.folder} was not pushed to {repo_id}: {_reason(error)}") from error
    return done.repo_url.url


def stage(policy: Policy, repo_id: str, folder: Path, **card: Any) -> None:
    """Fill a folder with what a repository is to hold.

    A tokenizer of the policy's own comes to lie at the top, because LeRobot loads one by a name that leads to
    no folder within a repository; config, preprocessor and train config call it by the repository's.

    Args:
        policy: Read, not written to.
        repo_id: Of the repository, in full.
        folder: Empty. The weights in it are a link.
        card: What ``write_card`` takes.
    """
    for file in sorted(policy.folder.iterdir()):
        if file.name == MODEL:
            (folder / MODEL).symlink_to(file)
        elif file.suffix in (".json", ".safetensors"):
            shutil.copyfile(file, folder / file.name)
    if (tokenizer := _tokenizer(policy.folder)) is not None:
        for file in sorted(tokenizer.iterdir()):
            if file.is_file() and not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)
        name_tokenizer(folder, repo_id)
        _name_in_train_config(folder / TRAIN_CONFIG, repo_id)
    write_card(policy, folder, repo_id=repo_id, **card)


def push_at_end(cfg: Any, output_dir: Path, done: int) -> None:
    """Push what a run has learned once it is over, if ``policy.push_to_hub`` says so.

    Whatever hinders it is said in one line, and costs the run nothing.

    Args:
        cfg: LeRobot's training config.
        output_dir: The run's.
        done: Updates or steps of ``cfg.steps``.
    """
    if not cfg.policy.push_to_hub or done < cfg.steps:
        return
    logger.info("pushing the last checkpoint to %s", cfg.policy.repo_id)
    try:
        url = push(Policy.read(output_dir), cfg.policy.repo_id, cfg.policy.private)
    except Exception as error:  # a card that cannot be written is no reason to fail, either
        logger.warning("%s To try again: pirl card %s --push", " ".join(str(error).split()), output_dir)
        return
    logger.info("Model pushed to %s", url)  # LeRobot's words, which its own tools look for


def _check(policy: Policy) -> None:
    if not (policy.folder / MODEL).is_file():
        raise ValueError(
            f"{policy.folder} holds what its run has changed, and not all weights. Write all of them, and "
            f"push what is written: pirl convert {policy.run or '<output_dir>'} FOLDER --step={policy.step}"
        )
    name = tokenizer_name(policy.folder)
    if name is not None and is_path(name) and _tokenizer(policy.folder) is None:
        raise ValueError(
            f"the tokenizer {name} of {policy.folder} is not there, and nobody could use the policy without "
            "it. Put it back."
        )


def _tokenizer(folder: Path) -> Path | None:
    """Return the folder of a policy's own tokenizer; None: it is of the hub."""
    name = tokenizer_name(folder)
    for place in (folder / TOKENIZER, *([Path(name)] if name is not None else [])):
        if place.is_dir():
            return place
    return None


def _name_in_train_config(file: Path, name: str) -> None:
    if not file.is_file():
        return
    config = read_json(file)
    for section in (config.get("policy") or {}, config.get("env") or {}):
        if section.get("tokenizer_name"):
            section["tokenizer_name"] = name
    write_json(file, config)


def _reason(error: BaseException) -> str:
    """Say in one line what the hub, or the way to it, has against a push, and what to do."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return (
            "it does not know who you are. Log in (hf auth login), or set HF_TOKEN to a token that may write."
        )
    if status == 403:
        return (
            "your token may not write there. Give a token with the role `write` (hf auth login), or another "
            "repo_id."
        )
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    said = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return f"{said.rstrip('.')}."
