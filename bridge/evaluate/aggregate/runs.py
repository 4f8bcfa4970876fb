"""Evaluations of several training runs, read from their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.evaluate.comparable import differences, outcomes
from bridge.evaluate.grid import Key, Outcomes, Task, shared
from bridge.evaluate.report import read_report


@dataclass(frozen=True)
class Run:
    """One policy's evaluation: a training run's, in one folder or, by suites and tasks, in several."""

    name: str
    """Its folders, as they were given."""
    label: str
    sha256: str
    """Of the policy."""
    outcomes: Outcomes


@dataclass(frozen=True)
class Evaluations:
    """All that is put together, and what is to be said of it."""

    runs: tuple[Run, ...]
    baseline: tuple[Run, ...]
    keys: tuple[Key, ...]
    """Episodes that all runs have played, those of the baseline too."""
    instructions: Mapping[Task, str]
    notices: tuple[str, ...]
    warnings: tuple[str, ...]


def read_evaluations(folders: Sequence[Path], baseline: Sequence[Path]) -> Evaluations:
    """Read the folders of runs, and those of a baseline if there is one.

    Raises:
        ValueError: A folder has no report or is given twice, two folders hold the same episodes of one
            policy, or there is no episode that all runs have played.
    """
    reports: dict[Path, dict[str, Any]] = {}
    for folder in (*folders, *baseline):
        if any(folder.resolve() == other.resolve() for other in reports):
            raise ValueError(f"{folder} is given twice: a run counts once.")
        reports[folder] = read_report(folder)
    sides = [_runs({folder: reports[folder] for folder in side}) for side in (folders, baseline)]
    runs = [run for side in sides for run in side]
    keys = shared([run.outcomes for run in runs])
    if not keys:
        raise ValueError(
            f"{', '.join(run.name for run in runs)} have no episode of the same task, initial state and "
            "seed. "
            "Evaluate all with the same --suites, --tasks and --seed."
        )
    named = {str(folder): report for folder, report in reports.items()}
    unlike = [
        f"{name} is not evaluated as it was trained: {differs}"
        for name, report in named.items()
        for differs in report.get("unlike_training", [])
    ]
    return Evaluations(
        runs=tuple(sides[0]),
        baseline=tuple(sides[1]),
        keys=tuple(keys),
        instructions={
            (suite, task["task_id"]): task["instruction"]
            for report in named.values()
            for suite, of_suite in report["suites"].items()
            for task in of_suite["tasks"]
        },
        notices=tuple(dict.fromkeys(report["notice"] for report in named.values() if report["notice"])),
        warnings=(*differences(named), *unlike, *_left_out(runs, keys)),
    )


def _runs(reports: Mapping[Path, Mapping[str, Any]]) -> list[Run]:
    """Put the folders of one policy together."""
    runs: dict[str, Run] = {}
    for folder, report in reports.items():
        digest, played = report["settings"]["checkpoint"]["sha256"], outcomes(report, folder)
        if (other := runs.get(digest)) is None:
            runs[digest] = Run(str(folder), report["label"], digest, played)
            continue
        if both := [key for key in played if key in other.outcomes]:
            suite, task, *_ = both[0]
            raise ValueError(
                f"{other.name} and {folder} are of one policy and both hold {suite} task {task}: they are "
                "not two runs. Leave one of them out."
            )
        runs[digest] = Run(f"{other.name} + {folder}", other.label, digest, {**other.outcomes, **played})
    return list(runs.values())


def _left_out(runs: Sequence[Run], keys: Sequence[Key]) -> list[str]:
    """Say which tasks a run lacks, and how many episodes do not count because another run lacks them."""
    tasks = dict.fromkeys(key[:2] for run in runs for key in run.outcomes)
    counted = set(keys)
    said = []
    for run in runs:
        played = {key[:2] for key in run.outcomes}
        if missing := [f"{suite} {task}" for suite, task in tasks if (suite, task) not in played]:
            said.append(f"{run.name} lacks {', '.join(missing)}, which is left out of all runs")
    for run in runs:
        if alone := sum(key not in counted for key in run.outcomes):
            said.append(f"{alone} episodes of {run.name} are left out: not all runs have played them")
    return said
