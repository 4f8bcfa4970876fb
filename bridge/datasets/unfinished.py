"""How a dataset is told that its recording is not over. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path


def recording(root: Path) -> Path:
    """Return the file that lies beside a dataset while it is being recorded, and after that was stopped."""
    return root.with_name(f"{root.name}.recording.json")
