"""The picture of several runs: each task's success, each run's beside it, and what a baseline reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from bridge.evaluate.aggregate.files import title
from bridge.evaluate.claims import NEW, THESE
from bridge.evaluate.figures import bare, colour_of, heading, show_rows
from bridge.evaluate.report import percent

_SIDES = {"baseline": ("#9aa3ad", -0.17), "runs": ("#2f6ba3", 0.17)}
"""Colour, and how far below the middle of a row."""
_LABEL = 48
"""Characters of a task's instruction in each of two lines."""

Row = tuple[str, Mapping[str, Any]]


def draw_aggregate(aggregate: Mapping[str, Any], path: Path) -> None:
    """Draw suites and their average, then each suite's tasks; beside them the differences to a baseline.

    Args:
        aggregate: Content of ``aggregate.json``.
        path: The image to write.
    """
    panels = _panels(aggregate)
    compared = bool(aggregate["baseline"])
    heights = [max(len(rows), 2) + 1.6 for _, rows in panels]
    figure, axes = plt.subplots(
        len(panels),
        2 if compared else 1,
        figsize=(12 if compared else 9, 1.1 + 0.29 * sum(heights)),
        gridspec_kw={"height_ratios": heights} | ({"width_ratios": (3, 2)} if compared else {}),
        layout="constrained",
        squeeze=False,
    )
    try:
        for (name, rows), of_panel in zip(panels, axes):
            _success(of_panel[0], name, rows)
            if compared:
                _differences(of_panel[1], rows)
        _legend(axes[0, 0], aggregate)
        heading(figure, f"{title(aggregate)}\n{_result(aggregate)}", aggregate["notice"])
        figure.savefig(path, dpi=130)
    finally:
        plt.close(figure)


def _result(aggregate: Mapping[str, Any]) -> str:
    average, suites = aggregate["average"], list(aggregate["suites"])
    where = suites[0] if len(suites) == 1 else f"average of {len(suites)} suites"
    against = f" against {percent(average['baseline'])}" if "baseline" in average else ""
    return f"{percent(average['runs'])}{against}, {where}"


def _panels(aggregate: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    suites = aggregate["suites"]
    average = [("average of suites", aggregate["average"])] * (len(suites) > 1)
    tasks = [(name, [(_label(task), task) for task in suite["tasks"]]) for name, suite in suites.items()]
    if len(tasks) == 1 and len(tasks[0][1]) == 1:
        return tasks
    return [("suites", [*suites.items(), *average]), *tasks]


def _label(task: Mapping[str, Any]) -> str:
    text = f"{task['task_id']}: {task['instruction']}"
    return "\n".join(wrap(text, _LABEL, max_lines=2, placeholder=" …"))


def _success(axis: Axes, name: str, rows: Sequence[Row]) -> None:
    for height, (_, row) in enumerate(rows):
        for side, (colour, below) in _SIDES.items():
            if side in row:
                _rate(axis, row[side], height + below * ("baseline" in row), colour)
    axis.set_yticks(range(len(rows)), [label for label, _ in rows])
    axis.set_xlim(-0.01, 1.01)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_title(name, loc="left", fontsize=9, fontweight="bold")
    show_rows(axis, len(rows), fewest=2)
    bare(axis)
    axis.tick_params(axis="y", labelsize=7)


def _rate(axis: Axes, result: Mapping[str, Any], height: float, colour: str) -> None:
    if result["ci95_new_tasks"] is not None:
        axis.plot(result["ci95_new_tasks"], [height] * 2, color=colour, linewidth=0.9)
    axis.plot(result["ci95"], [height] * 2, color=colour, linewidth=2.4, solid_capstyle="butt")
    if len(result["of_runs"]) > 1:
        axis.plot(result["of_runs"], [height] * len(result["of_runs"]), "|", color=colour, markersize=9)
    axis.plot(result["success"], height, "o", color=colour, markersize=5, clip_on=False, zorder=3)


def _differences(axis: Axes, rows: Sequence[Row]) -> None:
    for height, (_, row) in enumerate(rows):
        colour = colour_of(row["difference"], row.get("p_holm", row["p"]))
        axis.plot(row["difference_ci95"], [height] * 2, color=colour, linewidth=2)
        axis.plot(row["difference"], height, "o", color=colour, markersize=5)
    axis.axvline(0, color="0.6", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [""] * len(rows))
    axis.set_xlim(-1.02, 1.02)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    axis.set_title("runs − baseline, points (coloured: p < 0.05, Holm)", loc="left", fontsize=9)
    show_rows(axis, len(rows), fewest=2)
    bare(axis)


def _legend(axis: Axes, aggregate: Mapping[str, Any]) -> None:
    """Say above everything what the marks are; a picture travels without its report."""
    grey = "0.4"
    handles = [
        axis.plot([], [], "o", color=colour, label=side)[0]
        for side, (colour, _) in reversed(_SIDES.items())
        if aggregate[side]
    ]
    handles += [
        axis.plot([], [], "|", color=grey, markersize=9, label="each run")[0],
        axis.plot([], [], color=grey, linewidth=2.4, label=f"95 %: {THESE}")[0],
        axis.plot([], [], color=grey, linewidth=0.9, label=f"95 %: {NEW}")[0],
    ]
    axis.figure.legend(
        handles=handles, loc="outside upper right", ncols=len(handles), fontsize=8, frameon=False
    )
