"""A supervised warm start in one picture: its loss, and the learning rate that it went by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from bridge.figures.learning_curve import bare, series, smooth

_LOSS, _PARTS, _RATE = "#4878a8", ("#c8553d", "#3a9a5b", "#8a6fb0"), "#6b7280"


def warm_start_curve(rows: Sequence[Mapping[str, Any]], path: Path | str, title: str) -> None:
    """Draw the learning curve of ``pirl_jax.sft``.

    Args:
        rows: Rows of ``metrics.jsonl``, those that have a loss.
        path: The image to write.
        title: Heading.
    """
    figure, axes = plt.subplots(
        2, 1, figsize=(7.5, 5.2), sharex=True, height_ratios=(3, 1), layout="constrained", dpi=140
    )
    try:
        steps, losses = series(rows, "train/loss")
        axes[0].plot(steps, losses, color=_LOSS, alpha=0.35, linewidth=1.2)
        axes[0].plot(steps, smooth(losses), color=_LOSS, linewidth=2.2, label="loss")
        parts = sorted(name for name in rows[-1] if name.endswith("_loss"))
        for name, colour in zip(parts, _PARTS):
            label = name.rsplit("/", 1)[-1].removesuffix("_loss")
            steps, losses = series(rows, name)
            axes[0].plot(steps, smooth(losses), color=colour, linewidth=1.2, label=f"of {label}")
        axes[0].set_yscale("log")
        axes[0].legend(loc="upper right", fontsize=8, frameon=False)
        axes[0].set_title("loss", loc="left", fontsize=9)
        steps, rates = series(rows, "train/lr")
        axes[1].plot(steps, rates, color=_RATE, linewidth=1.4)
        axes[1].set_title("learning rate", loc="left", fontsize=9)
        for axis in axes:
            bare(axis)
        axes[1].set_xlabel("step", fontsize=9)
        axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.suptitle(f"warm start: {title}", x=0.01, ha="left", fontsize=12, fontweight="bold")
        figure.savefig(path)
    finally:
        plt.close(figure)
