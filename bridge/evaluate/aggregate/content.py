"""Several training runs in one report: their success on average, and by how much it beats a baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridge.evaluate.aggregate.runs import Run, read_evaluations
from bridge.evaluate.grid import Grid
from bridge.evaluate.holm import adjusted, verdict
from bridge.evaluate.resampling import bootstrap, interquartile_mean, probability_of_improvement
from bridge.evaluate.spread import difference, rate

FORMAT = 1


def aggregate(folders: Sequence[Path], baseline: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the content of ``aggregate.json`` for report folders of runs and, maybe, of a baseline's runs.

    A row (``average`` of suites, each suite, each task) has ``runs``, and with a baseline ``baseline`` and
    what is between the two. Rates are shares in [0, 1]: each run's, and their mean. Intervals are for these
    tasks (``ci95``) and for new tasks of this kind (``ci95_new_tasks``; None where a suite has one task).

    Raises:
        ValueError: The folders' numbers do not belong together (``read_evaluations``).
    """
    read = read_evaluations(folders, baseline)
    sides = [side for side in (read.runs, read.baseline) if side]
    grids = [Grid.of([run.outcomes for run in side], read.keys) for side in sides]

    def row(columns: np.ndarray) -> dict[str, Any]:
        return _row([grid.of_tasks(columns) for grid in grids])

    by_suite = grids[0].suites
    suites = [row(columns) for columns in by_suite.values()]
    tasks = [
        {"suite": task[0], "task_id": task[1], "instruction": read.instructions[task]}
        | row(np.asarray([column]))
        for column, task in enumerate(grids[0].tasks)
    ]
    average = row(np.arange(len(tasks))) if len(suites) > 1 else suites[0]
    said = {}
    if read.baseline:
        suites, tasks = adjusted(suites), adjusted(tasks)
        said["verdict"] = verdict(tasks)
    return {
        "format": FORMAT,
        "notice": "; ".join(read.notices) or None,
        "warnings": list(read.warnings),
        "runs": [_named(run) for run in read.runs],
        "baseline": [_named(run) for run in read.baseline],
        "average": average,
        **said,
        "suites": {
            name: suite | {"tasks": [task for task in tasks if task["suite"] == name]}
            for name, suite in zip(by_suite, suites)
        },
    }


def _named(run: Run) -> dict[str, Any]:
    return {"label": run.label, "folders": run.name, "sha256": run.sha256}


def _row(grids: Sequence[Grid]) -> dict[str, Any]:
    row = {name: _side(grid) for name, grid in zip(("runs", "baseline"), grids)}
    if len(grids) == 1:
        return row
    gain = difference(*grids)
    limits = {f"difference_{name}": value for name, value in gain.interval(-1.0, 1.0).items()}
    row |= {"difference": gain.value, **limits, "p": gain.p}
    if len(grids[0].tasks) > 1:
        row["probability_of_improvement"] = _improvement(grids)
    return row


def _side(grid: Grid) -> dict[str, Any]:
    side = {
        **rate(grid),
        "of_runs": [rate(grid.of_run(run))["success"] for run in range(len(grid.successes))],
        "episodes_of_a_run": int(grid.episodes.sum()),
    }
    if len(grid.tasks) > 1:
        middle = bootstrap(interquartile_mean, [grid])
        side["interquartile_mean"] = {"value": middle.value, **middle.interval(0.0, 1.0)}
    return side


def _improvement(grids: Sequence[Grid]) -> dict[str, Any]:
    improvement = bootstrap(probability_of_improvement, grids)
    if improvement.value in (0.0, 1.0):  # of runs that always win, resampling finds none that loses
        return {"value": improvement.value, "ci95": None, "ci95_new_tasks": None}
    return {"value": improvement.value, **improvement.interval(0.0, 1.0)}
