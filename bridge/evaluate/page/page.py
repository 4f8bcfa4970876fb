"""The HTML of a report and of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.evaluate.claims import claims
from bridge.evaluate.page.films import GRID, Films
from bridge.watch.html_file import PAGE, html_file

_HERE = Path(__file__).parent


def report_page(report: Mapping[str, Any], folder: Path) -> str:
    """Return the page of a report.

    Args:
        report: Content of ``report.json``.
        folder: Where the page will lie, beside the evaluation's ``tasks``.
    """
    films, settings = Films.of(folder, folder), report["settings"]
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for one in report["episodes"]:
        task = one["suite"], one["task_id"]
        cell = {name: one[name] for name in ("init_state", "seed", "success")}
        cells.setdefault(task, []).append(cell | {"video": films.path(*task, one["episode"])})
    suites = [
        _rates(suite)
        | {
            "name": name,
            "tasks": [
                _rates(task)
                | {
                    "name": f"{name} {task['task_id']}",
                    "instruction": task["instruction"],
                    "cells": cells.get((name, task["task_id"]), []),
                }
                for task in suite["tasks"]
            ],
        }
        for name, suite in report["suites"].items()
    ]
    numbers = [_rates(suite) | {"name": suite["name"]} for suite in suites]
    if len(suites) > 1:
        numbers.insert(0, _rates(report["suite_average"]) | {"name": "average of suites"})
    first, n = settings["seed"], settings["n_episodes"]
    data = {
        "kind": "report",
        "title": report["label"],
        "words": where(list(report["suites"]), report.get("trained_on")),
        "notices": [
            *([report["notice"]] if report["notice"] else []),
            *(f"{group} failed and is not counted: {why}." for group, why in report["failed"].items()),
            *(
                f"Not as the run that made this policy: {differs}."
                for differs in report.get("unlike_training", [])
            ),
        ],
        "numbers": numbers,
        "suites": suites,
        "grid": GRID if (folder / GRID).is_file() else None,
        "facts": [
            ["checkpoint", settings["checkpoint"]["path"]],
            ["its SHA-256", settings["checkpoint"]["sha256"]],
            ["assets", report["assets"]["reason"]],
            ["control mode", settings["control_mode"]],
            ["seeds", f"{first} to {first + n - 1}, the same for every task"],
            ["intervals", " ".join(claims(1)).replace("*", "")],
            ["films", "lerobot-eval keeps those of a task's first ten episodes"],
            ["versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())],
        ],
    }
    return _html(data)


def comparison_page(comparison: Mapping[str, Any], folder: Path) -> str:
    """Return the page of a comparison, with what has changed first.

    Args:
        comparison: Content of ``compare.json``.
        folder: Where the page will lie.
    """
    sides = {side: Films.of(Path(comparison[side]["report"]), folder) for side in "ab"}
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for one in comparison["episodes"]:
        task = one["suite"], one["task_id"]
        films = {f"video_{side}": sides[side].path(*task, one[f"episode_{side}"]) for side in "ab"}
        cell = {name: one[name] for name in ("init_state", "seed", "a", "b")}
        cells.setdefault(task, []).append(cell | films)
    a, b = (comparison[side] for side in "ab")
    data = {
        "kind": "comparison",
        "title": f"{a['label']} → {b['label']}",
        "words": where(list(comparison["suites"]), b.get("trained_on")),
        "notices": [
            *([comparison["notice"]] if comparison["notice"] else []),
            *(f"{warning}." for warning in comparison["warnings"]),
        ],
        "overall": comparison["overall"],
        "verdict": comparison["verdict"],
        "suites": [
            suite
            | {
                "name": name,
                "tasks": [
                    task
                    | {"name": f"{name} {task['task_id']}", "cells": cells.get((name, task["task_id"]), [])}
                    for task in suite["tasks"]
                ],
            }
            for name, suite in comparison["suites"].items()
        ],
        "facts": [
            *(
                [name, f"{side['label']} ({side['checkpoint']['path']}); report in {side['report']}"]
                for name, side in (("before", a), ("after", b))
            ),
            ["how", comparison["method"].replace("*", "").replace("`", "")],
        ],
    }
    return _html(data)


def where(suites: list[str], trained_on: str | None) -> str:
    """Say on what a policy was evaluated, and on what it was trained as far as that is known."""
    said = f"Evaluated on {' and '.join(suites) if len(suites) < 3 else ', '.join(suites)}"
    return f"{said}; trained on {trained_on}." if trained_on else f"{said}."


def _rates(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result.get(name) for name in ("success", "ci95", "ci95_new_tasks", "n")}


def _html(data: Mapping[str, Any]) -> str:
    styles = [PAGE / "page.css", _HERE / "page.css"]
    scripts = [PAGE / "dom.js", PAGE / "format.js", _HERE / "page.js"]
    return html_file(_HERE / "index.html", styles, scripts, data, media="'self' file:")
