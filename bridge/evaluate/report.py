"""One report of an evaluation: ``report.json``, ``report.md``, ``report.png``, ``report.html``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bridge.evaluate.assets import NOTICE
from bridge.evaluate.benchmark import instructions
from bridge.evaluate.claims import NEW, THESE, claims
from bridge.evaluate.grid import Grid
from bridge.evaluate.page.page import report_page, where
from bridge.evaluate.run import Finished
from bridge.evaluate.settings import Settings
from bridge.evaluate.spread import rate
from bridge.evaluate.trained import trained_on, unlike_training
from bridge.libero.suites import INIT_STATES
from pirl_jax.files import read_json, write_file, write_json, write_text

FORMAT = 2
_READABLE = (1, FORMAT)
"""Episodes and settings are the same in both; the first has no intervals for new tasks."""
JSON, MARKDOWN, PICTURE, PAGE = "report.json", "report.md", "report.png", "report.html"

_METHOD = (
    "A task's interval is Wilson's. Those of several tasks are Wilson's of as many independent episodes as "
    "would vary as much as episodes on fixed tasks do, or as tasks do (Student's t in place of z)."
)

_SUCCESS, _FAILURE = "●", "○"
_ASSETS = {"lerobot": "LeRobot's own", "development": "development stand-ins"}


def make_report(
    settings: Settings,
    identity: Mapping[str, Any],
    results: Sequence[Finished],
    failed: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the content of ``report.json``; ``failed`` names groups without a result, and why.

    Rates are shares in [0, 1] of ``n`` episodes, with intervals for these tasks (``ci95``) and for new tasks
    of this kind (``ci95_new_tasks``). ``overall`` counts all tasks alike; ``suite_average`` is the mean of
    the suites' rates, which papers report: the same number where the suites have as many tasks.
    """
    episodes = [episode for result in results for episode in result.episodes]
    outcomes = {(one.suite, one.task_id, one.init_state, one.seed): one.success for one in episodes}
    grid = Grid.of([outcomes], list(outcomes))
    suites = {}
    for suite, columns in grid.suites.items():
        said = instructions(suite)
        suites[suite] = {
            **_rate(grid.of_tasks(columns)),
            "horizon": settings.horizon(suite),
            "tasks": [
                {"task_id": task_id, "instruction": said[task_id], **_rate(grid.of_tasks(columns[[i]]))}
                for i, (_, task_id) in enumerate(grid.of_tasks(columns).tasks)
            ],
        }
    assets = identity["assets"]
    comparable = assets["kind"] == "lerobot"
    return {
        "format": FORMAT,
        "notice": None if comparable else NOTICE,
        "label": settings.checkpoint.label,
        "failed": dict(failed),
        "unlike_training": unlike_training(settings, suites),
        "trained_on": trained_on(settings.checkpoint.path),
        "overall": _rate(grid, pooled=True),
        "suite_average": _rate(grid),
        "suites": suites,
        "episodes": [asdict(episode) for episode in episodes],
        "settings": {
            "checkpoint": {
                "path": str(settings.checkpoint.path),
                "policy": settings.checkpoint.policy,
                "sha256": settings.checkpoint.digest,
            },
            **{
                key: value
                for key, value in identity.items()
                if key not in ("checkpoint", "assets", "versions")
            },
        },
        "assets": {**assets, "comparable_with_published": comparable},
        "versions": identity["versions"],
        "commands": [result.command for result in results],
        "seconds": round(sum(result.seconds for result in results), 1),
    }


def _rate(grid: Grid, pooled: bool = False) -> dict[str, Any]:
    return {
        **rate(grid, pooled),
        "successes": int(grid.successes.sum()),
        "n": int(grid.episodes.sum()),
    }


def read_report(folder: Path) -> dict[str, Any]:
    """Read ``report.json`` from a folder.

    Raises:
        ValueError: There is none of a format that is known here.
    """
    file = folder / JSON
    if not file.is_file():
        raise ValueError(f"{folder} holds no {JSON}; run pirl-eval on a checkpoint to make one.")
    report = read_json(file)
    if report.get("format") not in _READABLE:
        known = " and ".join(map(str, _READABLE))
        raise ValueError(f"{file} has format {report.get('format')!r}; only {known} can be read.")
    return report


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write the four files; the page shows films that lie in the folder, with those of ``write_grid``."""
    from bridge.evaluate.figures import draw_report  # matplotlib takes a second to load

    write_json(folder / JSON, report)
    write_text(folder / MARKDOWN, markdown(report))
    write_file(folder / PICTURE, lambda path: draw_report(report, path))
    write_text(folder / PAGE, report_page(report, folder))


def summary(report: Mapping[str, Any]) -> str:
    """Return the table that a person wants to see first."""
    rows = dict(report["suites"])
    if len(rows) > 1:
        rows["average of suites"] = report["suite_average"]
        if report["overall"]["success"] != report["suite_average"]["success"]:
            rows["all tasks"] = report["overall"]
    lines = [f"| suite | success | 95 %: {THESE} | 95 %: {NEW} | n |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {percent(result)} | {interval(result)} | {interval(result, 'ci95_new_tasks')} "
        f"| {result['n']} |"
        for name, result in rows.items()
    ]
    return "\n".join(lines)


def markdown(report: Mapping[str, Any]) -> str:
    """Return the content of ``report.md``."""
    settings, assets = report["settings"], report["assets"]
    lines = [f"# LIBERO: {report['label']}", "", where(list(report["suites"]), report.get("trained_on")), ""]
    if report["notice"]:
        lines += [f"> **{report['notice']}**", ""]
    lines += [f"> **{group} failed** and is not counted: {why}" for group, why in report["failed"].items()]
    lines += [""] * bool(report["failed"])
    unlike = report.get("unlike_training", [])
    lines += [f"> Not as the run that made this policy: {differs}." for differs in unlike]
    lines += [""] * bool(unlike)
    lines += [summary(report), "", "What the intervals cover:", "", *(f"- {one}" for one in claims(1)), ""]
    lines += [_METHOD, "", "## Tasks", ""]
    lines += [
        f"Outcomes ({_SUCCESS} success, {_FAILURE} failure) are in the order of the initial states, from 0.",
        "",
        "| suite | task | instruction | success | 95 % interval | n | outcomes |",
        "|---|---|---|---|---|---|---|",
    ]
    for suite, result in report["suites"].items():
        lines += [
            f"| {suite} | {task['task_id']} | {task['instruction']} "
            f"| {percent(task)} | {interval(task)} | {task['n']} "
            f"| {_outcomes(report['episodes'], suite, task['task_id'])} |"
            for task in result["tasks"]
        ]
    horizons = ", ".join(f"{suite} {result['horizon']}" for suite, result in report["suites"].items())
    first, n = settings["seed"], settings["n_episodes"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines += [
        "",
        "## How it was measured",
        "",
        "| | |",
        "|---|---|",
        f"| checkpoint | `{settings['checkpoint']['path']}` ({settings['checkpoint']['policy']}) |",
        f"| its SHA-256 | `{settings['checkpoint']['sha256']}` |",
        f"| assets | {_ASSETS[assets['kind']]} ({assets['reason']}) |",
        f"| control mode | {settings['control_mode']} |",
        f"| horizon (steps) | {horizons} |",
        f"| seeds | {first} to {first + n - 1}, the same for every task |",
        f"| policy's noise | torch's generator, seeded with {first} at the start of each process |",
        f"| initial states | LIBERO's own: a task's episode e begins in its state e mod {INIT_STATES} |",
        f"| environments at a time | {settings['batch_size']} |",
        f"| tasks a process | {settings['tasks_per_process']} |",
        f"| versions | {versions} |",
        f"| time in lerobot-eval | {report['seconds']:.0f} s |",
        "",
        "One of the commands; the others differ in suite and tasks:",
        "",
        "```bash",
        report["commands"][0],
        "```",
        "",
    ]
    return "\n".join(lines)


def percent(result: Mapping[str, Any]) -> str:
    """Return a rate in percent."""
    return f"{100 * result['success']:.1f} %"


def interval(result: Mapping[str, Any], name: str = "ci95") -> str:
    """Return a rate's interval in percent; a dash where one task tells nothing of others."""
    if result[name] is None:
        return "–"
    low, high = result[name]
    return f"{100 * low:.1f} – {100 * high:.1f}"


def _outcomes(episodes: Sequence[Mapping[str, Any]], suite: str, task_id: int) -> str:
    marks = [
        _SUCCESS if episode["success"] else _FAILURE
        for episode in episodes
        if (episode["suite"], episode["task_id"]) == (suite, task_id)
    ]
    return " ".join("".join(marks[i : i + 10]) for i in range(0, len(marks), 10))
