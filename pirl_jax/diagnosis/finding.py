"""One answer of the doctor's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One answer."""

    name: str
    value: str
    ok: bool = True
    advice: str = ""
    """What is wrong and what to change, where ``ok`` is false."""

    def __str__(self) -> str:
        line = f"{'ok' if self.ok else '!!'}  {self.name}: {self.value}"
        return line if self.ok else f"{line}\n    {self.advice}"


def verdict(findings: Sequence[Finding], episodes: int) -> str:
    """Return the doctor's last line.

    Args:
        findings: all of them.
        episodes: that they are of.
    """
    wrong = [finding.name for finding in findings if not finding.ok]
    if not wrong:
        return f"In {episodes} episodes nothing is wrong: the run is set up to learn."
    things = "one thing is" if len(wrong) == 1 else f"{len(wrong)} things are"
    return f"In {episodes} episodes {things} wrong ({'; '.join(wrong)}). Change that first: see !! above."
