"""What ``pirl-eval --aggregate`` writes: JSON, text and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge.evaluate.claims import NEW, THESE, claims
from bridge.evaluate.report import interval, percent
from pirl_jax.files import write_file, write_json, write_text

JSON, MARKDOWN, PICTURE = "aggregate.json", "aggregate.md", "aggregate.png"

METHOD = """\
Success is the mean over runs of each run's success; every task of a suite counts the same, and so does every
suite in the average. Its intervals are Wilson's, of as many independent episodes as would vary as much. Runs
share their tasks, so a run counts as one, with all its tasks: widths are Student's, by how runs (and tasks)
differ, and never below what episodes alone make. *IQM* is the mean of the middle half of all runs' rates on
all tasks, *P(improvement)* the probability that a run is better on a task than a run of the baseline, a tie
counting half (Agarwal et al. 2021, arXiv 2108.13264); their intervals are from a hierarchical bootstrap over
runs, tasks and episodes."""

_METHOD_OF_A_BASELINE = """\
Differences are runs − baseline, not paired by episode (of two single policies, `--compare` is the sharper
tool). p is the two-sided test that belongs to the interval on these tasks; *p, Holm* is adjusted for the
number of tasks, or of suites. With three runs a side, only large differences can be told from chance. A
P(improvement) of 0 or 100 % has no interval: runs that always win show no spread; near these, intervals of
three runs a side are somewhat narrow."""


def write_aggregate(aggregate: Mapping[str, Any], folder: Path) -> list[str]:
    """Write the three files, and return their names."""
    from bridge.evaluate.aggregate.figure import draw_aggregate  # matplotlib takes a second to load

    write_json(folder / JSON, aggregate)
    write_text(folder / MARKDOWN, markdown(aggregate))
    write_file(folder / PICTURE, lambda path: draw_aggregate(aggregate, path))
    return [JSON, MARKDOWN, PICTURE]


def markdown(aggregate: Mapping[str, Any]) -> str:
    """Return the content of ``aggregate.md``."""
    compared, n_runs = bool(aggregate["baseline"]), len(aggregate["runs"])
    lines = [f"# LIBERO: {title(aggregate)}", ""]
    if aggregate["notice"]:
        lines += [f"> **{aggregate['notice']}**", ""]
    lines += [f"> Warning: {warning}." for warning in aggregate["warnings"]]
    lines += [""] * bool(aggregate["warnings"])
    lines += [
        summary(aggregate),
        "",
        "What the intervals cover:",
        "",
        *(f"- {one}" for one in claims(n_runs)),
    ]
    if compared and len(aggregate["baseline"]) != n_runs:
        lines += [f"- The baseline's: {claims(len(aggregate['baseline']))[0]}"]
    lines += ["", METHOD, *(["", _METHOD_OF_A_BASELINE] if compared else []), "", "## Tasks", ""]
    lines += [tasks_table(aggregate), "", "## Runs", ""]
    for side in ("runs", "baseline"):
        rates = aggregate["average"].get(side, {}).get("of_runs", [])
        lines += [
            f"- {side}: {run['label']}, {100 * success:.1f} % (`{run['folders']}`)"
            for run, success in zip(aggregate[side], rates)
        ]
    return "\n".join([*lines, ""])


def title(aggregate: Mapping[str, Any]) -> str:
    """Return what was put together, in a few words."""
    runs, baseline = len(aggregate["runs"]), len(aggregate["baseline"])
    return _count(runs) + (f" against a baseline of {_count(baseline)}" if baseline else "")


def summary(aggregate: Mapping[str, Any]) -> str:
    """Return the tables that a person wants to see first, and the verdict."""
    rows = dict(aggregate["suites"])
    if len(rows) > 1:
        rows["**average of suites**"] = aggregate["average"]
    sides = [side for side in ("runs", "baseline") if aggregate[side]]
    head = f"95 %: {THESE} | 95 %: {NEW}"
    lines = [f"| | | success | {head} | IQM | {head} | n of a run |", "|---|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {name} | {side} | {percent(row[side])} | {_intervals(row[side])} "
        f"| {_extra(row[side].get('interquartile_mean'))} | {row[side]['episodes_of_a_run']} |"
        for name, row in rows.items()
        for side in sides
    ]
    if not aggregate["baseline"]:
        return "\n".join(lines)
    lines += [
        "",
        f"| | runs − baseline (points) | {head} | p | p, Holm | P(improvement) | {head} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {_difference(row)} | {_points(row['difference_ci95_new_tasks'])} | {_p(row)} "
        f"| {_extra(row.get('probability_of_improvement'))} |"
        for name, row in rows.items()
    ]
    return "\n".join([*lines, "", aggregate["verdict"]])


def tasks_table(aggregate: Mapping[str, Any]) -> str:
    """Return each task's success, with what it was in each run."""
    sides = [side for side in ("runs", "baseline") if aggregate[side]]
    head = ["suite", "task", "instruction"]
    for side in sides:
        head += [side, "95 % interval", "each run"]
    if aggregate["baseline"]:
        head += ["runs − baseline (points)", "95 % interval", "p", "p, Holm"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for suite in aggregate["suites"].values():
        for task in suite["tasks"]:
            cells = [task["suite"], str(task["task_id"]), task["instruction"]]
            for side in sides:
                cells += [percent(task[side]), interval(task[side]), _each(task[side]["of_runs"])]
            if aggregate["baseline"]:
                cells += [_difference(task), _p(task)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _count(runs: int) -> str:
    return f"{runs} run{'s' * (runs > 1)}"


def _each(rates: Sequence[float]) -> str:
    return ", ".join(f"{100 * rate:.0f}" for rate in rates)


def _intervals(result: Mapping[str, Any]) -> str:
    return f"{interval(result)} | {interval(result, 'ci95_new_tasks')}"


def _extra(result: Mapping[str, Any] | None) -> str:
    return "– | – | –" if result is None else f"{100 * result['value']:.1f} % | {_intervals(result)}"


def _difference(row: Mapping[str, Any]) -> str:
    return f"{100 * row['difference']:+.1f} | {_points(row['difference_ci95'])}"


def _points(limits: Sequence[float] | None) -> str:
    return "–" if limits is None else f"{100 * limits[0]:+.1f} to {100 * limits[1]:+.1f}"


def _p(row: Mapping[str, Any]) -> str:
    adjusted = f"{row['p_holm']:.3g}" if "p_holm" in row else ""
    return f"{row['p']:.3g} | {adjusted}"
