"""Settings that had another name before the recipe had sections: refused by the name they have now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "rollout": (
        "episodes_per_update",
        "max_chunks",
        "max_staleness",
        "group_size",
        "group_return_range",
        "task_success_range",
        "task_window",
    ),
    "advantage": ("gamma", "gae_lambda"),
    "objective": (
        "clip_ratio",
        "aggregation",
        "loss_weighting",
        "decoupled",
        "max_behaviour_weight",
        "reference_kl_coef",
        "entropy_coef",
    ),
    "critic": ("value_clip", "huber_delta", "value_coef"),
    "optimizer": (
        "num_epochs",
        "minibatch_size",
        "lr",
        "lr_warmup_steps",
        "betas",
        "eps",
        "weight_decay",
        "grad_clip_norm",
        "target_kl",
        "adaptive_lr",
    ),
}

RENAMED: Mapping[str, str] = MappingProxyType(
    {name: f"{section}.{name}" for section, names in _SECTIONS.items() for name in names}
    | {
        "advantage": "advantage.estimator",
        "normalize_advantages": "advantage.normalize",
        "push_dtype": "push.dtype",
        "anchor": "demonstrations",
    }
)
"""Old name → new name, both below ``algorithm``."""


GONE: Mapping[str, str] = MappingProxyType(
    {
        "spool_size": "an actor is given no further episode while the learner is away",
        "initial_parameters_timeout": "an actor waits for the parameters that it is told to act with",
    }
)
"""Settings that nothing has taken the place of → why."""


def refuse_old_names(arguments: Sequence[str]) -> None:
    """Look for old names on a command line in LeRobot's dialect and in the files that it names.

    Raises:
        ValueError: naming the old setting, the new one and where the old one stands.
    """
    for argument in arguments:
        key, _, value = argument.removeprefix("--").partition("=")
        if key == "config_path":
            _refuse(_read(value).get("algorithm"), value)
        elif key == "algorithm":
            file = value.removeprefix("include").strip()
            _refuse(_read(file), file)
        elif key.startswith("algorithm."):
            name = key.removeprefix("algorithm.")
            _refuse({name.split(".")[0]: {} if "." in name else value}, "the command line")


def _refuse(section: Any, where: str) -> None:
    if not isinstance(section, Mapping) or section.get("type", "pi_rl") != "pi_rl":
        return
    for name, value in section.items():
        if name in GONE:
            raise ValueError(f"algorithm.{name} in {where} is gone: {GONE[name]}. Leave it out.")
        if name in RENAMED and not (name == "advantage" and isinstance(value, Mapping)):
            raise ValueError(
                f"algorithm.{name} in {where} is now algorithm.{RENAMED[name]}; "
                "docs/configuration.md lists every setting that has moved."
            )


def _read(file: str) -> Mapping[str, Any]:
    """A JSON object, or nothing: what is wrong with a file is for its own reader to say."""
    try:
        content = json.loads(Path(file).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}
