"""What a soak has found: its figures, which of them are within bounds, and how to have them again."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def write(file: Path, figures: dict[str, Any], bounds: dict[str, tuple[float, float]]) -> bool:
    """Write a result and print it; return whether all of it is within bounds.

    Args:
        file: Of JSON.
        figures: What was measured.
        bounds: What was found, and what it may be at most; by what it is.
    """
    held = {name: found <= most for name, (found, most) in bounds.items()}
    script = Path(sys.argv[0]).resolve().relative_to(Path(__file__).resolve().parents[2])
    result = {
        "command": shlex.join(["python", str(script), *sys.argv[1:]]),
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "torch", "lerobot", "grpcio")},
        },
        "bounds": {
            name: {"found": found, "at_most": most, "held": held[name]}
            for name, (found, most) in bounds.items()
        },
        **figures,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2, sort_keys=False) + "\n")
    for name, (found, most) in bounds.items():
        print(f"{'held' if held[name] else 'BROKEN'}: {name} {found:.4g} (at most {most:.4g})", flush=True)
    return all(held.values())
