"""What an interval is about, in the words of every report."""

from __future__ import annotations

THESE, NEW = "these tasks", "new tasks of this kind"


def claims(n_runs: int) -> list[str]:
    """Return what the two kinds of interval cover, and what they do not, as lines of a list.

    Args:
        n_runs: Training runs that were evaluated.
    """
    if n_runs > 1:
        return [
            f"*{THESE}*: what runs like these {n_runs} reach on average on just these tasks. Runs vary, and "
            "their episodes with them; tasks are fixed.",
            f"*{NEW}*: what they would reach on other tasks, if these are a random draw of such. Tasks vary "
            "too.",
        ]
    return [
        f"*{THESE}*: what this policy reaches on just these tasks. Episodes vary; tasks are fixed.",
        f"*{NEW}*: what it would reach on other tasks, if these are a random draw of such. Tasks vary too.",
        "Neither covers another training run: `pirl-eval --aggregate` of several seeds does.",
    ]
