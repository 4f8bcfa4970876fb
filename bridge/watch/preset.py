"""Which preset a run's recipe is closest to, and where it differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pirl_jax.recipe import LaunchConfig, Recipe

PRESETS = Path(__file__).resolve().parents[2] / "configs" / "presets"
"""Beside the packages; absent where only they are installed."""
DEFAULTS = "the defaults"


@dataclass(frozen=True)
class Difference:
    """A setting that is not as the preset has it; both values as JSON."""

    name: str
    value: str
    preset: str


@dataclass(frozen=True)
class Closest:
    """A preset, and how a recipe differs from it."""

    name: str
    differences: tuple[Difference, ...]


def closest(algorithm: Mapping[str, Any], presets: Path = PRESETS) -> Closest:
    """Return the preset from which a recipe differs in the fewest settings.

    A run's config holds every setting and not which preset they came from.

    Args:
        algorithm: The section of a run's config.
        presets: Folder of the presets.
    """
    defaults = flat(json.loads(json.dumps(asdict(Recipe()))))
    defaults |= {
        f"launch.{name}": value for name, value in json.loads(json.dumps(asdict(LaunchConfig()))).items()
    }
    known = {DEFAULTS: defaults}
    for file in sorted(presets.glob("*.json")):
        known[file.name] = defaults | flat(json.loads(file.read_text(encoding="utf-8")))
    ours = flat(algorithm)
    found = [Closest(name, _differences(ours, settings)) for name, settings in known.items()]
    return min(found, key=lambda each: len(each.differences))


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[Difference, ...]:
    names = [name for name in ours if name in theirs and name != "type" and ours[name] != theirs[name]]
    return tuple(Difference(name, json.dumps(ours[name]), json.dumps(theirs[name])) for name in names)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name; an empty section counts as a value."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
