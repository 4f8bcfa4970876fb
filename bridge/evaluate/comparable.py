"""Whether the numbers of several reports can be held against each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.evaluate.grid import Outcomes

_MUST_MATCH = (
    "control_mode",
    "episode_length",
    "batch_size",
    "lerobot_eval_arguments",
    "tasks_per_process",
    "libero",
)


def outcomes(report: Mapping[str, Any], folder: Path) -> Outcomes:
    """Return a report's episodes.

    Raises:
        ValueError: They are damaged.
    """
    try:
        return {
            (str(one["suite"]), int(one["task_id"]), int(one["init_state"]), int(one["seed"])): bool(
                one["success"]
            )
            for one in report["episodes"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds a damaged report: {error!r} in its episodes.") from error


def differences(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say in what else than the checkpoint reports differ, which are given by the names to call them by."""
    conditions = {name: _conditions(report) for name, report in reports.items()}
    said = []
    for condition in dict.fromkeys(key for of_one in conditions.values() for key in of_one):
        found: list[tuple[Any, list[str]]] = []  # values need not be hashable
        for name, of_one in conditions.items():
            value = of_one.get(condition)
            alike = next((names for known, names in found if known == value), None)
            if alike is None:
                found.append((value, [name]))
            else:
                alike.append(name)
        if len(found) > 1:
            sides = ", ".join(f"{' and '.join(names)} {value!r}" for value, names in found)
            said.append(f"{condition} differs: {sides}")
    return said


def _conditions(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: report["settings"].get(name) for name in _MUST_MATCH},
        "assets": report["assets"]["reason"],
        "content of the assets": report["assets"].get("sha256"),
        **{f"version of {name}": version for name, version in report["versions"].items()},
    }
