"""Which expert plays a task, and how precisely: the project's own, or a class in a file of the user's."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bridge.libero.experts.expert import Expert
from bridge.libero.suites import TaskId

COVERED: Mapping[str, Sequence[int]] = {
    "libero_spatial": range(10),
    "libero_object": range(10),
    "libero_goal": (1, 4, 6, 8),
    "libero_10": (0, 1, 7),
}
"""Suite → numbers of the tasks that the project's expert plays."""

_MOST_OFFSET = 100.0  # mm; a hand that is farther off touches nothing


@dataclass(frozen=True)
class Choice:
    """An expert, made anew for each episode.

    Raises:
        ValueError: The noise is negative, an error of aim is more than 10 cm, or is asked of an expert of the
            user's, which knows of none.
    """

    file: str | None = None
    """``file.py:Class``, called as ``Class(simulator, rng=…, noise=…)``; None: the project's."""
    noise: float = 0.05
    """Of its commands, in the expert's own units."""
    aim_offset_mm: tuple[float, float] = (0.0, 0.0)
    """How far beside a thing the project's expert aims its hand, along the world's x and y."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"--noise must be ≥ 0; got {self.noise}.")
        if not max(map(abs, self.aim_offset_mm)) <= _MOST_OFFSET:  # NaN too
            raise ValueError(
                f"--aim_offset_mm must be within ±{_MOST_OFFSET:.0f} mm in x and y; got {self.aim_offset_mm}."
            )
        if self.file is not None and any(self.aim_offset_mm):
            raise ValueError(
                f"--aim_offset_mm is for the project's expert, not for {self.file}. Leave one of them out."
            )

    def __str__(self) -> str:
        return self.file or "the project's expert"

    def check(self, tasks: Sequence[TaskId]) -> None:
        """See to it that there is an expert of each task.

        Raises:
            ValueError: There is none of one, or the user's cannot be found.
        """
        if self.file is not None:
            _class(self.file)
        elif missing := [task for task in tasks if task.number not in COVERED.get(task.suite, ())]:
            labels = ", ".join(task.label for task in missing)
            known = "; ".join(f"{suite}: {_numbers(numbers)}" for suite, numbers in COVERED.items())
            raise ValueError(
                f"there is no expert of {labels}. The project's plays {known}. "
                f"Choose by --suites and --tasks, or give one of yours by --expert=file.py:Class."
            )

    def make(self, simulator: Any, seed: int) -> Any:
        """Return the expert of an episode that has been reset; its ``act()`` gives the next command, [7]."""
        rng = np.random.default_rng(seed)
        if self.file is not None:
            return _class(self.file)(simulator, rng=rng, noise=self.noise)
        offset = [millimetres / 1000 for millimetres in self.aim_offset_mm]
        return Expert(simulator, rng=rng, noise=self.noise, aim_offset=offset)


def read_offset(text: str) -> tuple[float, float]:
    """Read ``--aim_offset_mm``, two numbers with a comma between.

    Raises:
        ValueError: It is anything else.
    """
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise ValueError(
            f"--aim_offset_mm must be X,Y in millimetres of the world, as 15,0; got {text!r}."
        ) from None
    return x, y


@lru_cache(maxsize=1)
def _class(name: str) -> Any:
    path, _, attribute = name.rpartition(":")
    spec = importlib.util.spec_from_file_location("expert", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ValueError(f"--expert must be file.py:Class; got {name!r}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        raise ValueError(f"--expert must be file.py:Class; {path} has no {attribute!r}.")
    return getattr(module, attribute)


def _numbers(numbers: Sequence[int]) -> str:
    return (
        f"{numbers.start}-{numbers.stop - 1}" if isinstance(numbers, range) else ", ".join(map(str, numbers))
    )
