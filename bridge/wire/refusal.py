"""Why a learner refuses who would work for it: another package, another config, other weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bridge.wire import record
from bridge.wire.protocol import PACKAGE_VERSION

_NAMED = 5
_LONGEST = 80


def refusal(
    who: str,
    package: str,
    row_format: int,
    theirs: Mapping[str, Any],
    ours: Mapping[str, Any],
) -> str | None:
    """Return what differs, in words, and the remedy; None if nothing does.

    Args:
        who: "actor" or "policy server".
        package: Version of this package over there.
        row_format: Of its action rows (``record.FORMAT``).
        theirs: What must be the same: dotted name → JSON value.
        ours: The same of the learner's.
    """
    if (package, row_format) != (PACKAGE_VERSION, record.FORMAT):
        return (
            f"The {who} has pirl-jax {package} (row format {row_format}), the learner {PACKAGE_VERSION} (row "
            f"format {record.FORMAT}). Install one version on both sides."
        )
    differing = [
        f"{name} is {_shown(theirs, name)} and the learner's is {_shown(ours, name)}"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
    if not differing:
        return None
    more = f", and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
    return (
        f"The {who}'s {'; '.join(differing[:_NAMED])}{more}. "
        f"Start learner and {who}s from one config and one checkpoint."
    )


def _shown(agreement: Mapping[str, Any], name: str) -> str:
    text = json.dumps(agreement[name]) if name in agreement else "not set"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "…"
