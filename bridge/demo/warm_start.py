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

ENOUGH = 0.40
"""Success on validation episodes above which a checkpoint is good enough to learn from its own experience."""


def checkpoints(output_dir: Path) -> list[Path]:
    """Return the policy folders of a run's checkpoints, oldest first."""
    folders = (output_dir / "checkpoints").glob("[0-9]*/pretrained_model")
    return sorted(folders, key=lambda folder: int(folder.parent.name))


def choose_middling(candidates: Sequence[Path], success: Callable[[Path], Evaluation]) -> Path:
    """Return about the first checkpoint with ``ENOUGH`` success, by bisection.

    Raises:
        RuntimeError: None is good enough.
    """
    low, high, best = 0, len(candidates) - 1, None
    while low <= high:
        middle = (low + high) // 2
        evaluation = success(candidates[middle])
        logger.info("   step %d: %.0f %%", int(candidates[middle].parent.name), 100 * evaluation.success)
        if evaluation.success >= ENOUGH:
            best, high = candidates[middle], middle - 1
        else:
            low = middle + 1
    if best is None:
        raise RuntimeError(
            f"no warm-start checkpoint reaches {ENOUGH:.0%} success; train longer "
            "(steps in configs/panda_pick_cube_sft.json)."
        )
    return best
