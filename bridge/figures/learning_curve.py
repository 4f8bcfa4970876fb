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

_TRAIN, _OWN, _EVAL, _KL, _VALUE = "#4878a8", "#3a9a5b", "#c8553d", "#6b7280", "#6b7280"
_PANELS = (
    ("train/approx_kl", "KL to the acting policy", _KL),
    ("train/explained_variance", "value: explained variance", _VALUE),
)


def learning_curve(
    rows: Sequence[Mapping[str, Any]],
    path: Path | str,
    title: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Draw ``learning_curve.png``.

    Args:
        rows: Rows of ``metrics.jsonl``, one an update and one an evaluation of the run's own
            (``pirl_jax.training.metrics.read``).
        path: The image to write.
        title: Heading; lines after the first are notes.
        before: ``success``, ``n`` and ``ci95`` of the policy that training started from, where another
            program has evaluated it.
        after: The same of the policy it ended with.

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
    axis: Axes,
    rows: Sequence[Mapping[str, Any]],
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> None:
    steps, rates = series(rows, "train/success_rate")
    axis.plot(steps, rates, color=_TRAIN, alpha=0.35, linewidth=1.2)
    axis.plot(steps, smooth(rates), color=_TRAIN, linewidth=2.2, label="exploring policy, training episodes")
    _evaluations(axis, rows)
    label = "zero-noise policy, {} evaluation episodes, 95% interval"
    for step, result in ((0, before), (int(rows[-1]["step"]), after)):
        if result is not None:
            _point(axis, step, result, label.format(result["n"]))
            label = ""  # once is enough
    axis.set_ylim(0, 1.12)  # room for what stands above 100 %
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_title("success", loc="left", fontsize=9)
    axis.legend(loc="lower right", fontsize=8, frameon=False)


def _evaluations(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw what the run's own evaluations have found, which is in percent."""
    rows = [row for row in rows if row.get("eval/pc_success") is not None]
    if not rows:
        return
    steps = [row["step"] for row in rows]
    rates, low, high = (
        [row[f"eval/{name}"] / 100 for row in rows]
        for name in ("pc_success", "interval_low", "interval_high")
    )
    counts = sorted({int(row["eval/n_episodes"]) for row in rows})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    axis.fill_between(steps, low, high, color=_OWN, alpha=0.15, linewidth=0)
    label = f"zero-noise policy, the run's own evaluations: {n} episodes each, 95% interval"
    axis.plot(steps, rates, "o-", color=_OWN, linewidth=2.2, markersize=4, label=label)


def _point(axis: Axes, step: int, result: Mapping[str, Any], label: str) -> None:
    """Draw what another program's evaluation has found of one policy."""
    low, high = result["ci95"]
    rate = result["success"]
    axis.errorbar(
        step,
        rate,
        yerr=[[max(0.0, rate - low)], [max(0.0, high - rate)]],
        fmt="o",
        color=_EVAL,
        markersize=7,
        capsize=4,
        linewidth=1.6,
        label=label or None,
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
