"""TensorBoard's event files, as TensorBoard reads them."""

from pathlib import Path

import pytest


def series(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of each tag in a folder of event files; skips a test without a reader."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
