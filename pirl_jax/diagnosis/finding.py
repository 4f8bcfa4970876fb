"""One answer of the doctor's."""

from __future__ import annotations

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
