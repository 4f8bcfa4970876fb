"""What the commands that let an expert play have in common: which tasks, which expert, from where."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from bridge.libero import init_states
from bridge.libero.experts.choice import Choice, read_offset
from bridge.libero.suites import SUITES, TaskId, select_tasks


@dataclass(frozen=True)
class Asked:
    """What the options say."""

    tasks: list[TaskId]
    expert: Choice
    states: range
    """Initial states."""


def add_options(parser: argparse.ArgumentParser, episodes: int) -> None:
    """Declare the options; ``episodes`` of each task unless told otherwise."""
    parser.add_argument("--suites", default="libero_object", help=f"comma-separated, of {', '.join(SUITES)}")
    parser.add_argument("--tasks", default=None, help="comma-separated numbers; all if not given")
    parser.add_argument("--episodes", type=int, default=episodes, help="of each task")
    parser.add_argument("--init_states", default=None, help="first:end, as 20:50; all 50 if not given")
    parser.add_argument("--expert", default=None, help="file.py:Class of one of yours")
    parser.add_argument("--noise", type=float, default=0.05, help="of the expert's commands, in each step")
    parser.add_argument(
        "--aim_offset_mm",
        default="0,0",
        help="X,Y: how far beside a thing the expert aims, always in the same direction of the world",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--processes", type=int, default=min(2, os.cpu_count() or 1), help="that play at a time"
    )


def read_options(options: argparse.Namespace) -> Asked:
    """Return what was asked for.

    Raises:
        ValueError: It makes no sense, or there is no expert of a task.
    """
    for name in ("episodes", "processes"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be ≥ 1; got {getattr(options, name)}.")
    if options.seed < 0:
        raise ValueError(f"--seed must be ≥ 0; got {options.seed}.")
    tasks = select_tasks(options.suites, _numbers(options.tasks))
    expert = Choice(options.expert, options.noise, read_offset(options.aim_offset_mm))
    expert.check(tasks)
    return Asked(tasks, expert, init_states.read("--init_states", options.init_states))


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--tasks must be numbers with commas between, as 0,3; got {text!r}.") from None
