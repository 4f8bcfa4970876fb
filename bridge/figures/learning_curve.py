"""A run in one picture: success while training, before and after, and whether the updates were healthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

_TRAIN, _EVAL, _KL, _VALUE = "#4878a8", "#c8553d", "#6b7280", "#6b7280"
_PANELS = (
    ("train/approx_kl", "KL to the acting policy", _KL),
    ("train/explained_variance", "value: explained variance", _VALUE),
)


def learning_curve(
    rows: Sequence[Mapping[str, Any]],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    path: Path | str,
    title: str,
) -> None:
    """Draw ``learning_curve.png``.

    Args:
        rows: Rows of ``metrics.jsonl``, one an update (``pirl_jax.training.metrics.read``).
        before: ``success``, ``n`` and ``ci95`` of the policy that training started from.
        after: The same of the policy it ended with.
        path: The image to write.
        title: Heading; lines after the first are notes.

    Raises:
        ValueError: There are no updates to draw.
    """
    if not rows:
        raise ValueError("metrics.jsonl holds no update: there is no learning curve to draw.")
    figure, axes = plt.subplots(
        3, 1, figsize=(7.5, 6.6), sharex=True, height_ratios=(3, 1, 1), layout="constrained", dpi=140
    )
    try:
        _success(axes[0], rows, before, after)
        for axis, (key, label, colour) in zip(axes[1:], _PANELS):
            steps, values = series(rows, key)
            axis.plot(steps, values, color=colour, linewidth=1.4)
            axis.set_title(label, loc="left", fontsize=9)
        for axis in axes:
            bare(axis)
        axes[-1].set_xlabel("update", fontsize=9)
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        heading, *notes = title.split("\n")
        figure.suptitle(heading, x=0.01, ha="left", fontsize=12, fontweight="bold")
        if notes:  # a picture travels without its report
            figure.supxlabel("\n".join(notes), fontsize=8, color="#b00020")
        figure.savefig(path)
    finally:
        plt.close(figure)


def _success(
    axis: Axes, rows: Sequence[Mapping[str, Any]], before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    steps, rates = series(rows, "train/success_rate")
    axis.plot(steps, rates, color=_TRAIN, alpha=0.35, linewidth=1.2)
    axis.plot(steps, smooth(rates), color=_TRAIN, linewidth=2.2, label="exploring policy, training episodes")
    ends = (0, int(rows[-1]["step"]))
    label = f"zero-noise policy, {after['n']} evaluation episodes, 95% interval"
    for step, result, name in zip(ends, (before, after), (label, None)):
        low, high = result["ci95"]
        rate = result["success"]
        error = [[max(0.0, rate - low)], [max(0.0, high - rate)]]
        axis.errorbar(
            step,
            rate,
            yerr=error,
            fmt="o",
            color=_EVAL,
            markersize=7,
            capsize=4,
            linewidth=1.6,
            label=name,
            zorder=3,
        )
        axis.annotate(
            f"{100 * rate:.0f}%",
            (step, high),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=10,
            fontweight="bold",
            color=_EVAL,
        )
    axis.set_ylim(0, 1.12)  # room for what stands above 100 %
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_title("success", loc="left", fontsize=9)
    axis.legend(loc="lower right", fontsize=8, frameon=False)


def bare(axis: Axes) -> None:
    """Leave of an axis what is needed to read it."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=9)


def series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the updates and values of the rows that have a number for ``key``."""
    pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return np.asarray([step for step, _ in pairs]), np.asarray([value for _, value in pairs], float)


def smooth(values: np.ndarray, width: int = 5) -> np.ndarray:
    """Centred moving average, over what there is at the ends."""
    half = width // 2
    return np.asarray([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])
