"""What a checkpoint's processors say of the observations and actions that its policy was trained on.

LeRobot reads it when it loads a policy for evaluation; training must agree with it, or it trains what is
never used again. A checkpoint may be silent: of ``Announced`` None means so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from lerobot.utils.constants import OBS_IMAGE, OBS_IMAGES, OBS_STATE
from safetensors.numpy import load_file

from bridge.plugin.recipe_config import STATS_OF
from bridge.weights.beside import CONFIG, PREPROCESSOR
from bridge.weights.folder import resolve

POSTPROCESSOR = "policy_postprocessor.json"
_OBSERVED_AS = {"STATE": (OBS_STATE,), "VISUAL": (OBS_IMAGE, OBS_IMAGES)}
"""Kinds of observations and how their names begin."""
_IMAGE_STEPS = ("xvla_image_to_float", "xvla_imagenet_normalize")


@dataclass(frozen=True)
class Announced:
    """What the processors of a checkpoint say."""

    source: str
    """Where the checkpoint is, for messages."""
    domain_id: int | None = None
    tokenizer: Mapping[str, Any] | None = None
    """``max_length``, ``padding`` and ``padding_side``."""
    action_stats: Mapping[str, np.ndarray] | None = None
    """By which actions are un-normalised: ``mean``, ``std``, …; None also where they are left as they are."""
    action_norm: str | None = None
    """How, where they are: ``MEAN_STD``, …"""
    observation_norms: Mapping[str, str] = MappingProxyType({})
    """What of observations is normalised, and how: ``STATE`` → ``MEAN_STD``."""
    image_steps: tuple[str, ...] | None = None
    """Steps that prepare images, by their registered names; None: there are none, the environment does it."""
    action_mode: str | None = None
    """How the policy's action channels are to be read (``config.json``)."""


def announced(source: Path | str) -> Announced:
    """Read the processors of a checkpoint's folder, or of a model on the hub.

    Raises:
        bridge.weights.state_dict.WeightsError: There is no such checkpoint.
        ValueError: A processor's file is damaged.
    """
    folder = resolve(source)
    before, after = (_steps(folder / name) for name in (PREPROCESSOR, POSTPROCESSOR))
    normalizer, unnormalizer = before.get("normalizer_processor"), after.get("unnormalizer_processor")
    action_stats = _action_stats(folder, unnormalizer)
    domain, tokenizer = before.get("xvla_add_domain_id"), before.get("tokenizer_processor")
    return Announced(
        source=str(source),
        domain_id=None if domain is None else int(domain["config"].get("domain_id", 0)),
        tokenizer=None
        if tokenizer is None
        else {
            name: tokenizer["config"][name]
            for name in ("max_length", "padding", "padding_side")
            if name in tokenizer["config"]
        },
        action_stats=action_stats,
        action_norm=None if action_stats is None else _norms(unnormalizer).get("ACTION"),
        observation_norms=_observation_norms(folder, normalizer),
        image_steps=tuple(name for name in before if name in _IMAGE_STEPS) or None,
        action_mode=_config(folder).get("action_mode"),
    )


def agreed_domain(
    checkpoint: Announced | None,
    dataset: Sequence[int] | None,
    environment: int | None,
    asked: int | None = None,
    *,
    num_domains: int,
) -> int:
    """Return the one domain id that all who name one agree on; 0 if nobody does.

    Args:
        checkpoint: of the policy that is trained on; None for none.
        dataset: the ids in its domain column; None without such a column. Several name none: each frame has
            its own.
        environment: the environment's id; None without an environment.
        asked: what the user asks for, over all others but a dataset's column.
        num_domains: of the policy: ids are below it.

    Raises:
        ValueError: They disagree, and it names the three; or the policy has no such domain.
    """
    others = {"checkpoint": None if checkpoint is None else checkpoint.domain_id, "env": environment}
    if asked is not None:
        others = {"domain_id": asked}
    named = {value for value in others.values() if value is not None}
    if not named:
        named = set(dataset) if dataset is not None and len(dataset) == 1 else {0}
    if len(named) == 1 and (dataset is None or named <= set(dataset)):
        for domain in (*named, *(dataset or ())):
            if not 0 <= domain < num_domains:
                raise ValueError(
                    f"domain id {domain} is not one of the policy's: policy.num_domains={num_domains}, "
                    "counted from 0. Mend the dataset's column, the checkpoint's, env.domain_id or domain_id."
                )
        return named.pop()
    where = "" if checkpoint is None else f" ({checkpoint.source})"
    column = None if dataset is None else ", ".join(map(str, dataset))
    said = {**others, "dataset": column}
    listed = "; ".join(f"{name}: {'none' if value is None else value}" for name, value in said.items())
    raise ValueError(
        f"the domain id, which selects X-VLA's soft prompt, is not one and the same. {listed}{where}. Set "
        "env.domain_id (RL) or domain_id (SFT) to the one to train, or mend the dataset's column."
    )


def check_policy(checkpoint: Announced, policy: Any) -> None:
    """Compare a policy's config with what the checkpoint says of observations, actions and instructions.

    Raises:
        ValueError: They differ; says in what, and what to set.
    """
    check_observations(checkpoint)
    check_images(checkpoint)
    check_action_norm(checkpoint, policy)
    check_action_mode(checkpoint, policy)
    check_tokenizer(checkpoint, policy)


def check_observations(checkpoint: Announced) -> None:
    """Check that a checkpoint's preprocessor leaves observations as they come, as is done here.

    Raises:
        ValueError: It normalises some.
    """
    for kind, norm in checkpoint.observation_norms.items():
        raise ValueError(
            f"{PREPROCESSOR} of {checkpoint.source} normalises {kind} by {norm}, and observations reach the "
            "policy here as the environment or the dataset has them: it would see others than LeRobot shows "
            "it. Use a checkpoint that was trained on observations as they are."
        )


def check_action_norm(checkpoint: Announced, policy: Any) -> None:
    """Compare a policy's config with how the checkpoint un-normalises actions.

    Raises:
        ValueError: They differ.
    """
    ours = getattr(policy.normalization_mapping.get("ACTION"), "value", "IDENTITY")
    if checkpoint.action_norm not in (None, ours):
        raise ValueError(
            f"policy.normalization_mapping.ACTION is {ours}, but {POSTPROCESSOR} of {checkpoint.source} "
            f"un-normalises actions by {checkpoint.action_norm}: set it to that."
        )


def check_images(checkpoint: Announced) -> None:
    """Compare what a checkpoint's preprocessor does to images with what is done to them here.

    Raises:
        ValueError: It scales them without ImageNet's normalisation, or the other way round.
    """
    if checkpoint.image_steps not in (None, _IMAGE_STEPS):
        raise ValueError(
            f"{PREPROCESSOR} of {checkpoint.source} prepares images by {', '.join(checkpoint.image_steps)} "
            f"alone, and X-VLA is trained here on {' and '.join(_IMAGE_STEPS)}: the policy would see other "
            "images than LeRobot shows it. Mend the file, or use a checkpoint that has both."
        )


def check_action_mode(checkpoint: Announced, policy: Any) -> None:
    """Compare a policy's config with how the checkpoint's action channels are read.

    Raises:
        ValueError: They differ.
    """
    theirs = checkpoint.action_mode
    if theirs is not None and theirs.lower() != policy.action_mode.lower():
        raise ValueError(
            f"policy.action_mode is {policy.action_mode!r}, but {checkpoint.source} was trained with "
            f"{theirs!r}: its action channels mean something else. Set policy.action_mode={theirs}."
        )


def check_tokenizer(checkpoint: Announced, policy: Any) -> None:
    """Compare a policy's config with how the checkpoint's instructions were tokenised.

    Raises:
        ValueError: They differ.
    """
    config = {
        "max_length": ("tokenizer_max_length", policy.tokenizer_max_length),
        "padding": ("pad_language_to", policy.pad_language_to),
        "padding_side": ("tokenizer_padding_side", policy.tokenizer_padding_side),
    }
    for name, theirs in (checkpoint.tokenizer or {}).items():
        field, ours = config[name]
        if theirs != ours:
            raise ValueError(
                f"policy.{field} is {ours!r}, but {PREPROCESSOR} of {checkpoint.source} says {theirs!r}: "
                f"instructions would be tokenised otherwise than LeRobot does. Set policy.{field}={theirs}."
            )


def refuse_normalised_actions(checkpoint: Announced) -> None:
    """Check that supervised training here may begin from a checkpoint: it leaves actions as they are.

    Raises:
        ValueError: It un-normalises them.
    """
    if checkpoint.action_stats is not None:
        raise ValueError(
            f"{POSTPROCESSOR} of {checkpoint.source} un-normalises actions by {checkpoint.action_norm}: its "
            "head predicts normalised ones, and pirl_jax.sft trains on actions as they are. Train it with "
            "lerobot-train, or begin from a checkpoint that leaves them as they are."
        )


def check_action_stats(checkpoint: Announced, stats: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Compare the recipe's statistics of actions with those that the checkpoint un-normalises by.

    Raises:
        ValueError: They differ, or the recipe has none of theirs.
    """
    ours = (stats or {}).get("action", {})
    for name, theirs in (checkpoint.action_stats or {}).items():
        close = partial(np.allclose, rtol=1e-5, atol=1e-7)
        if name not in ours or not close(np.asarray(ours[name], np.float64), theirs):
            raise ValueError(
                f"algorithm.dataset_stats.action.{name} is not what {POSTPROCESSOR} of {checkpoint.source} "
                "un-normalises by. Copy the checkpoint's statistics into algorithm.dataset_stats."
            )


def _steps(file: Path) -> dict[str, dict[str, Any]]:
    """The processor's steps by their registered names; none where there is no such file."""
    if not file.is_file():
        return {}
    try:
        return {step["registry_name"]: step for step in json.loads(file.read_text())["steps"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is no processor of LeRobot's ({error}). Copy or export it again."
        ) from error


def _observation_norms(folder: Path, step: Mapping[str, Any] | None) -> dict[str, str]:
    """What a normaliser does to observations; nothing where it has no statistics, as LeRobot has it."""
    if step is None or "state_file" not in step:
        return {}
    names = load_file(folder / step["state_file"])
    return {
        kind: norm
        for kind, norm in _norms(step).items()
        if norm != "IDENTITY" and any(name.startswith(_OBSERVED_AS.get(kind, ())) for name in names)
    }


def _norms(step: Mapping[str, Any] | None) -> Mapping[str, str]:
    """How a step normalises each kind of feature: ``ACTION``, ``STATE``, ``VISUAL``."""
    return {} if step is None else step["config"].get("norm_map", {})


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    return json.loads(file.read_text()) if file.is_file() else {}


def _action_stats(folder: Path, step: dict[str, Any] | None) -> dict[str, np.ndarray] | None:
    if step is None or "state_file" not in step or step["config"]["norm_map"].get("ACTION") == "IDENTITY":
        return None
    used = STATS_OF.get(step["config"]["norm_map"].get("ACTION"), ())
    tensors = load_file(folder / step["state_file"])
    return {name: tensors[f"action.{name}"] for name in used if f"action.{name}" in tensors}
