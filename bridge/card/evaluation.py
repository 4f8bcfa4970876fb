"""The report of ``pirl-eval`` that is of a policy, and of no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bridge.card.policy import Policy
from bridge.evaluate.report import FORMAT, JSON, read_report
from pirl_jax.files import digest, digest_of_folder
from pirl_jax.run_folder.layout import MODEL

_BESIDE = (".", "*", "../*", "../eval/*")
"""Where a report of a run's policy is looked for, from the run's folder."""


def given(policy: Policy, folder: Path) -> dict[str, Any]:
    """Read a report.

    Raises:
        ValueError: There is none, or it is another policy's.
    """
    report = read_report(folder)
    if report["format"] != FORMAT:
        raise ValueError(
            f"{folder / JSON} is of an older pirl-eval: the same pirl-eval command writes it anew."
        )
    if not _is_of(report, policy.folder, digest_of_folder(policy.folder)):
        raise ValueError(
            f"{folder / JSON} is of another policy ({report['settings']['checkpoint']['path']}), or this one "
            f"has changed since: run pirl-eval on {policy.folder}."
        )
    return report


def beside(policy: Policy) -> tuple[Path, dict[str, Any]] | None:
    """Return the report of the policy with the most episodes that lies beside its run, and where it lies."""
    files = list(_files(policy.run)) if policy.run else []
    if not files:
        return None
    ours, found = digest_of_folder(policy.folder), []
    for file in files:
        try:
            report = read_report(file.parent)
        except ValueError:  # somebody else's report.json
            continue
        if report["format"] == FORMAT and _is_of(report, policy.folder, ours):
            found.append((file, report))
    return max(found, key=lambda each: each[1]["overall"]["n"], default=None)


def _files(run: Path) -> Iterator[Path]:
    for place in _BESIDE:
        yield from sorted(run.glob(f"{place}/{JSON}") if "*" in place else run.glob(JSON))


def _is_of(report: dict[str, Any], folder: Path, ours: str) -> bool:
    """Tell whether a report is of a policy: of its files, or of its weights in the form for evaluation."""
    theirs = report["settings"]["checkpoint"]
    if theirs["sha256"] == ours:
        return True
    other, weights = Path(theirs["path"]), folder / MODEL
    return (
        weights.is_file()
        and (other / MODEL).is_file()
        and digest_of_folder(other) == theirs["sha256"]
        and digest(other / MODEL) == digest(weights)
    )
