"""The pictures of a report and of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bridge.evaluate.holm import LEVEL

_BAR, _BETTER, _WORSE, _SAME = "#4878a8", "#3a9a5b", "#c8553d", "#6b7280"
_OUTCOMES = ListedColormap(["#c8553d", "#3a9a5b"])
_NOTICE = "#b00020"
_FEWEST = 3
"""Rows that a suite has room for at least: one task's bar would fill the picture."""


def draw_report(report: Mapping[str, Any], path: Path) -> None:
    """Draw each suite's tasks, with 95 % intervals, beside the outcome in every initial state.

    Args:
        report: Content of ``report.json``.
        path: The image to write.
    """
    suites = report["suites"]
    heights = [max(len(suite["tasks"]), _FEWEST) + 1.5 for suite in suites.values()]
    figure, axes = plt.subplots(
        len(suites),
        2,
        figsize=(11, 1.3 + 0.27 * sum(heights)),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
        squeeze=False,
    )
    try:
        for (name, suite), (bars, raster) in zip(suites.items(), axes):
            _bars(bars, name, suite)
            _raster(raster, report, name, suite)
        average = report["suite_average"]
        low, high = average["ci95"]
        of = "" if len(suites) == 1 else f", average of {len(suites)} suites"
        trained = f"\ntrained on {report['trained_on']}" if report.get("trained_on") else ""
        heading(
            figure,
            f"{report['label']}\n{average['success']:.1%}{of}, "  # labels may be long
            f"95 % interval on these tasks {low:.1%} – {high:.1%}, n = {average['n']}{trained}",
            report["notice"],
        )
        figure.savefig(path, dpi=130)
    finally:
        plt.close(figure)


def draw_comparison(comparison: Mapping[str, Any], path: Path) -> None:
    """Draw the difference of every task, every suite and of all, with 95 % intervals.

    Args:
        comparison: Content of ``compare.json``.
        path: The image to write.
    """
    rows = []
    for name, suite in comparison["suites"].items():
        rows += [(f"{name} {task['task_id']}", task, "o") for task in suite["tasks"]]
        rows.append((name, suite, "D"))
    rows.append(("all pairs", comparison["overall"], "D"))
    figure, axis = plt.subplots(figsize=(8, 1.4 + 0.25 * len(rows)), layout="constrained")
    try:
        for height, (_, result, marker) in enumerate(rows):
            low, high = result["difference_ci95"]
            colour = colour_of(result["difference"], result.get("p_holm", result["p_mcnemar"]))
            axis.plot([low, high], [height, height], color=colour, linewidth=2.4 if marker == "D" else 1.4)
            axis.plot(result["difference"], height, marker, color=colour, markersize=6)
        axis.axvline(0, color="0.6", linewidth=0.8)
        axis.set_yticks(range(len(rows)), [label for label, _, _ in rows], fontsize=8)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(-1.02, 1.02)
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        axis.set_xlabel("success of B minus success of A, points (coloured: p < 0.05, Holm)", fontsize=9)
        bare(axis)
        heading(figure, f"A: {comparison['a']['label']}\nB: {comparison['b']['label']}", comparison["notice"])
        figure.savefig(path, dpi=130)
    finally:
        plt.close(figure)


def colour_of(difference: float, p: float) -> str:
    """Return the colour of a difference: grey where it may be chance."""
    return _SAME if p >= LEVEL else _BETTER if difference > 0 else _WORSE


def _bars(axis: Axes, name: str, suite: Mapping[str, Any]) -> None:
    tasks = suite["tasks"]
    rates = np.asarray([task["success"] for task in tasks])
    low, high = np.asarray([task["ci95"] for task in tasks]).T
    heights = np.arange(len(tasks))
    axis.barh(heights, rates, color=_BAR, height=0.65)
    # Rounding may leave an end of the interval on the wrong side of the rate.
    errors = np.maximum(0.0, [rates - low, high - rates])
    axis.errorbar(rates, heights, xerr=errors, fmt="none", ecolor="0.25", elinewidth=1.1, capsize=2.5)
    axis.set_yticks(heights, [f"{task['task_id']}" for task in tasks], fontsize=8)
    show_rows(axis, len(tasks))
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_title(f"{name}: {suite['success']:.1%} (n = {suite['n']})", loc="left", fontsize=9)
    bare(axis)


def _raster(axis: Axes, report: Mapping[str, Any], name: str, suite: Mapping[str, Any]) -> None:
    rows = {task["task_id"]: row for row, task in enumerate(suite["tasks"])}
    outcomes = np.full((len(rows), report["settings"]["n_episodes"]), np.nan)
    for episode in report["episodes"]:
        if episode["suite"] == name:
            outcomes[rows[episode["task_id"]], episode["episode"]] = episode["success"]
    axis.imshow(outcomes, cmap=_OUTCOMES, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axis.set_yticks(range(len(rows)), [str(task_id) for task_id in rows], fontsize=8)
    show_rows(axis, len(rows))
    axis.spines[:].set_visible(False)
    # One episode is one tick wide: the default wants two ticks, and finds them between episodes.
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.set_title("episode, one an initial state (green: success)", loc="left", fontsize=9)
    axis.tick_params(labelsize=8)


def show_rows(axis: Axes, n: int, fewest: int = _FEWEST) -> None:
    """Show n rows from above, in the middle of room for some at least."""
    middle, half = (n - 1) / 2, max(n, fewest) / 2
    axis.set_ylim(middle + half, middle - half)


def bare(axis: Axes) -> None:
    """Leave of an axis what is needed to read it."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)


def heading(figure: Figure, title: str, notice: str | None) -> None:
    """Write a picture's title, and in red below it what must not be overlooked."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    if notice:
        figure.supxlabel(notice, x=0.01, ha="left", fontsize=9, color=_NOTICE)
