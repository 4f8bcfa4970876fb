"""CPU seconds on one pinned core, of several ways to do one thing in turn; torch compiled, if it can be.

Import it before JAX and torch: ``pin`` has to act before they count the cores.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Step = Callable[[], object]


def pin() -> None:
    """Keep this process, and what JAX and torch start in it, to one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # torch.compile would start a compiler process for each core of the machine.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def seconds(step: Step, repeats: int = 1, clock: Callable[[], float] = time.process_time) -> float:
    """Return the seconds of a step, by default those of the CPU."""
    started = clock()
    for _ in range(repeats):
        step()
    return (clock() - started) / repeats


def alternately(
    steps: Mapping[str, Step | None],
    rounds: int,
    repeats: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float | None]:
    """Return each step's median; they take turns, so that all of them meet the same machine.

    Args:
        steps: by name; None for one that cannot be done here. Each is done once before, unmeasured.
        rounds: medians are of so many.
        repeats: of a step in a round.
        clock: of ``seconds``.
    """
    there = {name: step for name, step in steps.items() if step is not None}
    for step in there.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in there}
    for _ in range(rounds):
        for name, step in there.items():
            times[name].append(seconds(step, repeats, clock))
    return {name: statistics.median(times[name]) if name in times else None for name in steps}


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Return a quotient of what was measured; None if one of the two was not."""
    return None if ours is None or theirs is None else ours / theirs


def cell(value: float | str | None) -> str:
    """Write a figure to three digits, and what is missing as a dash."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3g}"


def row(*values: float | str | None) -> str:
    """Write a line of a Markdown table."""
    return "| " + " | ".join(map(cell, values)) + " |"


def header(names: Sequence[str]) -> str:
    """Write the head of a Markdown table."""
    return "| " + " | ".join(names) + " |\n|" + "---|" * len(names)


def why_not_compiled() -> str | None:
    """Say why ``torch.compile`` cannot work here; None if nothing is known to be against it."""
    import torch

    if torch.cuda.is_available():
        return None
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        return "torch.compile needs a C++ compiler for a CPU, and there is none here"
    return None


def compiled_or_not(make: Callable[[], Step]) -> tuple[Step | None, str | None]:
    """Return a step through ``torch.compile``, tried once, or None and why there is none."""
    if reason := why_not_compiled():
        return None, reason
    try:
        step = make()
        step()
    except Exception as error:  # torch's compiler fails in as many ways as it has back ends
        return None, f"torch.compile failed: {type(error).__name__}: {str(error).splitlines()[0]}"
    return step, None
