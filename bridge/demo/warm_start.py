"""Where reinforcement learning starts: a policy that succeeds sometimes.

Behaviour cloning rises steeply (a few dozen steps take this task from rare to frequent success), so the start
is chosen among the warm start's checkpoints by evaluation. A converged clone of few demonstrations would be
as middling, but explores little; an unfinished clone of many has much left to find.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from bridge.demo.evaluate import Evaluation

logger = logging.getLogger(__name__)

MIDDLING = 0.47
"""Success on validation episodes that leaves as much to find as there is to build on."""
TOLERANCE = 0.25


def checkpoints(output_dir: Path) -> list[Path]:
    """Return the policy folders of a run's checkpoints, oldest first."""
    folders = (output_dir / "checkpoints").glob("[0-9]*/pretrained_model")
    return sorted(folders, key=lambda folder: int(folder.parent.name))


def choose_middling(candidates: Sequence[Path], success: Callable[[Path], Evaluation]) -> Path:
    """Return the checkpoint nearest to ``MIDDLING`` success among those that a bisection looks at.

    Raises:
        RuntimeError: None is within ``TOLERANCE`` of it.
    """
    low, high, rates = 0, len(candidates) - 1, {}
    while low <= high:
        middle = (low + high) // 2
        rates[middle] = success(candidates[middle]).success
        logger.info("   step %d: %.0f %%", int(candidates[middle].parent.name), 100 * rates[middle])
        if rates[middle] >= MIDDLING:
            high = middle - 1
        else:
            low = middle + 1
    nearest = min(rates, key=lambda index: abs(rates[index] - MIDDLING), default=None)
    if nearest is None or abs(rates[nearest] - MIDDLING) > TOLERANCE:
        raise RuntimeError(
            f"no warm-start checkpoint is within {TOLERANCE:.0%} of {MIDDLING:.0%} success; train longer or "
            "save more often (steps, save_freq in configs/panda_pick_cube_sft.json)."
        )
    return candidates[nearest]
