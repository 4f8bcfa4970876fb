"""When a run is saved, from LeRobot's keys."""

from __future__ import annotations

from typing import Any

from bridge.settings.evaluation import evaluation_freq

SAVE_UPDATES, SAVE_MINUTES = 10, 15.0
"""A run is saved so often, whichever comes first, unless ``save_freq`` says otherwise."""


def cadence_of(cfg: Any) -> dict[str, Any]:
    """Return the arguments of ``training.saves.Cadence``: as ``save_freq`` says, or often enough for RL.

    LeRobot's own default is for the short steps of supervised training. What is evaluated is saved, too.
    """
    if cfg.save_freq != type(cfg).save_freq:
        return {"updates": max(0, cfg.save_freq), "saves": cfg.save_checkpoint}
    return {
        "updates": SAVE_UPDATES,
        "minutes": SAVE_MINUTES,
        "saves": cfg.save_checkpoint,
        "evaluated": evaluation_freq(cfg),
    }
