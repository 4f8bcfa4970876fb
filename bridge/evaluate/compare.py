"""Two reports side by side, paired by task, initial state and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge.evaluate.report import read_report
from bridge.evaluate.statistics import mcnemar_exact, paired_difference
from pirl_jax.files import write_file, write_json, write_text
from pirl_jax.run_folder.layout import CURVE

JSON, MARKDOWN, PICTURE = "compare.json", "compare.md", "compare.png"

METHOD = (
    "Pairs are episodes of the same suite, task, initial state and seed. Differences are B − A; their 95 % "
    "intervals are Newcombe's square-and-add intervals for paired proportions (1998, method 10); p is "
    "McNemar's exact two-sided test. Pairs are taken as independent, and p values are not corrected for the "
    "number of tasks."
)

_MUST_MATCH = (
    "control_mode",
    "episode_length",
    "batch_size",
    "lerobot_eval_arguments",
    "tasks_per_process",
    "libero",
)

Outcomes = Mapping[tuple[str, int, int, int], bool]
"""Success by suite, task, initial state and seed."""


def compare(a: Path, b: Path) -> dict[str, Any]:
    """Return the content of ``compare.json`` for two report folders.

    Raises:
        ValueError: A folder holds no report, or the two have no pair.
    """
    reports = (read_report(a), read_report(b))
    outcomes = (_outcomes(reports[0], a), _outcomes(reports[1], b))
    keys = [key for key in outcomes[0] if key in outcomes[1]]
    if not keys:
        raise ValueError(
            f"{a} and {b} have no episode of the same task, initial state and seed. "
            "Evaluate both with the same --suites, --tasks and --seed."
        )
    suites = {}
    for suite in dict.fromkeys(key[0] for key in keys):
        mine = [key for key in keys if key[0] == suite]
        suites[suite] = {
            **_pairs(*outcomes, mine),
            "tasks": [
                {"task_id": task_id, **_pairs(*outcomes, [key for key in mine if key[1] == task_id])}
                for task_id in dict.fromkeys(key[1] for key in mine)
            ],
        }
    notices = dict.fromkeys(report["notice"] for report in reports if report["notice"])
    return {
        "format": 1,
        "notice": "; ".join(notices) or None,
        "warnings": _warnings(*reports),
        "method": METHOD,
        "a": _side(reports[0], a, len(outcomes[0]) - len(keys)),
        "b": _side(reports[1], b, len(outcomes[1]) - len(keys)),
        "overall": _pairs(*outcomes, keys),
        "suites": suites,
    }


def write_comparison(
    comparison: Mapping[str, Any], folder: Path, updates: Sequence[Mapping[str, Any]] = ()
) -> list[str]:
    """Write ``compare.json``, ``compare.md`` and ``compare.png``; return the names of all that was written.

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
    if not updates:
        return [JSON, MARKDOWN, PICTURE]
    before, after = (comparison[side]["overall"] for side in "ab")
    unlike = comparison["b"]["unlike_training"]
    notes = [comparison["notice"], *(differs.partition(": --")[0] for differs in unlike)]
    title = "\n".join([f"π-RL on {', '.join(comparison['suites'])}", *filter(None, notes)])
    write_file(folder / CURVE, lambda path: learning_curve(updates, path, title, before, after))
    return [JSON, MARKDOWN, PICTURE, CURVE]


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
    lines += ["", table(comparison), "", comparison["method"], ""]
    return "\n".join(lines)


def table(comparison: Mapping[str, Any]) -> str:
    """Return tasks, suites and all pairs as one table."""
    lines = [
        "| | pairs | A | B | B − A (points) | 95 % interval | only A | only B | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, suite in comparison["suites"].items():
        lines += [_row(f"{name} task {task['task_id']}", task) for task in suite["tasks"]]
        lines.append(_row(f"**{name}**", suite))
    lines.append(_row("**all pairs**", comparison["overall"]))
    return "\n".join(lines)


def _row(label: str, result: Mapping[str, Any]) -> str:
    low, high = result["difference_ci95"]
    return (
        f"| {label} | {result['pairs']} "
        f"| {100 * result['success_a']:.1f} % | {100 * result['success_b']:.1f} % "
        f"| {100 * result['difference']:+.1f} | {100 * low:+.1f} to {100 * high:+.1f} "
        f"| {result['only_a']} | {result['only_b']} | {result['p_mcnemar']:.3g} |"
    )


def _outcomes(report: Mapping[str, Any], folder: Path) -> Outcomes:
    try:
        return {
            (str(one["suite"]), int(one["task_id"]), int(one["init_state"]), int(one["seed"])): bool(
                one["success"]
            )
            for one in report["episodes"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds a damaged report: {error!r} in its episodes.") from error


def _pairs(a: Outcomes, b: Outcomes, keys: Sequence[tuple[str, int, int, int]]) -> dict[str, Any]:
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
        "p_mcnemar": mcnemar_exact(only_a, only_b),
    }


def _side(report: Mapping[str, Any], folder: Path, unpaired: int) -> dict[str, Any]:
    return {
        "label": report["label"],
        "report": str(folder),
        "checkpoint": report["settings"]["checkpoint"],
        "unpaired": unpaired,
        "overall": report["overall"],
        "unlike_training": report.get("unlike_training", []),
    }


def _warnings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return what else differs between the reports than the checkpoint, and between B and its training."""
    pairs = [(name, a["settings"].get(name), b["settings"].get(name)) for name in _MUST_MATCH]
    pairs += [("assets", a["assets"]["reason"], b["assets"]["reason"])]
    pairs += [("content of the assets", a["assets"].get("sha256"), b["assets"].get("sha256"))]
    pairs += [
        (f"version of {name}", a["versions"].get(name), b["versions"].get(name)) for name in a["versions"]
    ]
    differing = [f"{name} differs: A {mine!r}, B {other!r}" for name, mine, other in pairs if mine != other]
    unlike = b.get("unlike_training", [])
    return differing + [f"B is not evaluated as it was trained: {differs}" for differs in unlike]
