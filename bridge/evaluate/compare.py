"""Two reports side by side, paired by task, initial state and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge.evaluate.comparable import differences, outcomes
from bridge.evaluate.grid import Key, Outcomes, shared
from bridge.evaluate.holm import adjusted, verdict
from bridge.evaluate.page.page import comparison_page
from bridge.evaluate.report import read_report
from bridge.evaluate.statistics import mcnemar_exact, paired_difference
from pirl_jax.files import write_file, write_json, write_text
from pirl_jax.run_folder.layout import CURVE

_P = "p_mcnemar"

JSON, MARKDOWN, PICTURE, PAGE = "compare.json", "compare.md", "compare.png", "compare.html"

METHOD = (
    "Pairs are episodes of the same suite, task, initial state and seed. Differences are B − A; their 95 % "
    "intervals are Newcombe's square-and-add intervals for paired proportions (1998, method 10); p is "
    "McNemar's exact two-sided test, and *p, Holm* is adjusted for the number of tasks, or of suites. Pairs "
    "are taken as independent. Intervals and tests are about *these tasks*, played by these two policies: "
    "they say nothing of other tasks, nor of other training runs (`--aggregate` does)."
)


def compare(a: Path, b: Path) -> dict[str, Any]:
    """Return the content of ``compare.json`` for two report folders.

    Raises:
        ValueError: A folder holds no report, or the two have no pair.
    """
    reports = (read_report(a), read_report(b))
    played = (outcomes(reports[0], a), outcomes(reports[1], b))
    keys = shared(played)
    if not keys:
        raise ValueError(
            f"{a} and {b} have no episode of the same task, initial state and seed. "
            "Evaluate both with the same --suites, --tasks and --seed."
        )
    names = list(dict.fromkeys(key[0] for key in keys))
    tasks = sorted(dict.fromkeys(key[:2] for key in keys), key=lambda task: names.index(task[0]))
    by_suite = adjusted([_pairs(*played, [key for key in keys if key[0] == name]) for name in names], _P)
    by_task = adjusted([_pairs(*played, [key for key in keys if key[:2] == task]) for task in tasks], _P)
    unlike = [f"B is not evaluated as it was trained: {one}" for one in reports[1].get("unlike_training", [])]
    said = {
        (name, task["task_id"]): task["instruction"]
        for name, suite in reports[1]["suites"].items()
        for task in suite["tasks"]
    }
    notices = dict.fromkeys(report["notice"] for report in reports if report["notice"])
    return {
        "format": 1,
        "notice": "; ".join(notices) or None,
        "warnings": [*differences(dict(zip("AB", reports))), *unlike],
        "method": METHOD,
        "a": _side(reports[0], a, len(played[0]) - len(keys)),
        "b": _side(reports[1], b, len(played[1]) - len(keys)),
        "overall": _pairs(*played, keys),
        "verdict": verdict(by_task),
        "episodes": _episodes(reports, played, keys),
        "suites": {
            name: suite
            | {
                "tasks": [
                    {"task_id": task[1], "instruction": said.get(task), **row}
                    for task, row in zip(tasks, by_task)
                    if task[0] == name
                ]
            }
            for name, suite in zip(names, by_suite)
        },
    }


def write_comparison(
    comparison: Mapping[str, Any], folder: Path, updates: Sequence[Mapping[str, Any]] = ()
) -> list[str]:
    """Write ``compare.json``, ``.md``, ``.png`` and ``.html``; return the names of all that was written.

    Args:
        comparison: of the policies before (A) and after (B).
        folder: made if missing.
        updates: rows of ``metrics.jsonl`` that led from A to B, for ``learning_curve.png``.
    """
    from bridge.evaluate.figures import draw_comparison  # matplotlib takes a second to load
    from bridge.figures.learning_curve import learning_curve

    write_json(folder / JSON, comparison)
    write_text(folder / MARKDOWN, markdown(comparison))
    write_file(folder / PICTURE, lambda path: draw_comparison(comparison, path))
    write_text(folder / PAGE, comparison_page(comparison, folder))
    if not updates:
        return [JSON, MARKDOWN, PICTURE, PAGE]
    before, after = (comparison[side]["overall"] for side in "ab")
    unlike = comparison["b"]["unlike_training"]
    notes = [comparison["notice"], *(differs.partition(": --")[0] for differs in unlike)]
    suites = list(comparison["suites"])
    where = " and ".join(suites) if len(suites) < 3 else f"{len(suites)} suites"
    trained = comparison["b"]["trained_on"]
    title = f"{comparison['b']['label']}, evaluated on {where}{f', trained on {trained}' if trained else ''}"
    title = "\n".join([title, *filter(None, notes)])
    write_file(folder / CURVE, lambda path: learning_curve(updates, path, title, before, after))
    return [JSON, MARKDOWN, PICTURE, PAGE, CURVE]


def markdown(comparison: Mapping[str, Any]) -> str:
    """Return the content of ``compare.md``."""
    lines = ["# LIBERO, paired comparison", ""]
    if comparison["notice"]:
        lines += [f"> **{comparison['notice']}**", ""]
    lines += [f"> Warning: {warning}." for warning in comparison["warnings"]]
    lines += [""] * bool(comparison["warnings"])
    for name in ("a", "b"):
        side = comparison[name]
        unpaired = f"; {side['unpaired']} episodes without a partner" if side["unpaired"] else ""
        lines.append(f"- {name.upper()}: {side['label']} (`{side['report']}`{unpaired})")
    lines += ["", table(comparison), "", comparison["verdict"], "", comparison["method"], ""]
    return "\n".join(lines)


def table(comparison: Mapping[str, Any]) -> str:
    """Return tasks, suites and all pairs as one table."""
    lines = [
        "| | pairs | A | B | B − A (points) | 95 % interval | only A | only B | p | p, Holm |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, suite in comparison["suites"].items():
        lines += [_row(f"{name} task {task['task_id']}", task) for task in suite["tasks"]]
        lines.append(_row(f"**{name}**", suite))
    lines.append(_row("**all pairs**", comparison["overall"]))
    return "\n".join(lines)


def _row(label: str, result: Mapping[str, Any]) -> str:
    low, high = result["difference_ci95"]
    adjusted = f"{result['p_holm']:.3g}" if "p_holm" in result else ""
    return (
        f"| {label} | {result['pairs']} "
        f"| {100 * result['success_a']:.1f} % | {100 * result['success_b']:.1f} % "
        f"| {100 * result['difference']:+.1f} | {100 * low:+.1f} to {100 * high:+.1f} "
        f"| {result['only_a']} | {result['only_b']} | {result[_P]:.3g} | {adjusted} |"
    )


def _pairs(a: Outcomes, b: Outcomes, keys: Sequence[Key]) -> dict[str, Any]:
    both = sum(a[key] and b[key] for key in keys)
    only_a = sum(a[key] and not b[key] for key in keys)
    only_b = sum(b[key] and not a[key] for key in keys)
    n = len(keys)
    difference, limits = paired_difference(both, only_a, only_b, n - both - only_a - only_b)
    return {
        "pairs": n,
        "success_a": (both + only_a) / n,
        "success_b": (both + only_b) / n,
        "difference": difference,
        "difference_ci95": list(limits),
        "only_a": only_a,
        "only_b": only_b,
        _P: mcnemar_exact(only_a, only_b),
    }


def _side(report: Mapping[str, Any], folder: Path, unpaired: int) -> dict[str, Any]:
    return {
        "label": report["label"],
        "report": str(folder),
        "checkpoint": report["settings"]["checkpoint"],
        "unpaired": unpaired,
        "overall": report["overall"],
        "unlike_training": report.get("unlike_training", []),
        "trained_on": report.get("trained_on"),
    }


def _episodes(
    reports: Sequence[Mapping[str, Any]], played: Sequence[Outcomes], keys: Sequence[Key]
) -> list[dict[str, Any]]:
    """Return each pair: how its two episodes ended, and which of their evaluations' films are theirs."""
    numbers = [
        {
            (one["suite"], one["task_id"], one["init_state"], one["seed"]): one["episode"]
            for one in report["episodes"]
        }
        for report in reports
    ]
    return [
        {
            **dict(zip(("suite", "task_id", "init_state", "seed"), key)),
            **{side: of_one[key] for side, of_one in zip("ab", played)},
            **{f"episode_{side}": of_one.get(key) for side, of_one in zip("ab", numbers)},
        }
        for key in keys
    ]
