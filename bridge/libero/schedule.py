"""Which task and which initial state is played next: a rule, so that a run can be repeated."""

from __future__ import annotations

import threading

import numpy as np

TASK_SAMPLING = ("uniform", "round_robin", "weighted")
INIT_STATE_RULES = ("random", "sequential")

_STREAM = 0x11BE20
"""Keeps these draws apart from others made of the same seed."""

_MEMORY = 0.95
_LEAST_WEIGHT = 0.05


class Schedule:
    """Chooses tasks and initial states. Its methods may be called from several threads.

    Args:
        num_tasks: To choose from.
        task_sampling: ``uniform``: at random; ``round_robin``: in turn; ``weighted``: at random, more often
            what fails (weight 1 - success rate over about the last 20 episodes of the task, at least 0.05).
        init_state_rule: ``random``; ``sequential``: a task's states in turn.

    Raises:
        ValueError: An unknown rule, or no tasks.
    """

    def __init__(
        self, num_tasks: int, task_sampling: str = "uniform", init_state_rule: str = "random"
    ) -> None:
        validate(task_sampling, init_state_rule)
        if num_tasks < 1:
            raise ValueError("A schedule needs at least one task.")
        self._task_sampling = task_sampling
        self._init_state_rule = init_state_rule
        self._chosen = 0
        self._visits = np.zeros(num_tasks, int)
        # One imagined success and failure, so that nothing is certain before it was tried.
        self._successes, self._trials = np.ones(num_tasks), np.full(num_tasks, 2.0)
        self._lock = threading.Lock()

    def choose(self, seed: int) -> tuple[int, int | None]:
        """Return the task of the next episode (or group of episodes), whose seed this is, and its place.

        The place counts the task's initial states on and on; None leaves the state to the seed. See
        :func:`init_state_of`.
        """
        with self._lock:
            task = self._next_task(seed)
            place = int(self._visits[task]) if self._init_state_rule == "sequential" else None
            self._chosen += 1
            self._visits[task] += 1
            return task, place

    def _next_task(self, seed: int) -> int:
        num_tasks = len(self._visits)
        if self._task_sampling == "round_robin":
            return self._chosen % num_tasks
        if self._task_sampling == "weighted":
            weights = np.maximum(1 - self._successes / self._trials, _LEAST_WEIGHT)
            return int(_generator(seed, 0).choice(num_tasks, p=weights / weights.sum()))
        return int(_generator(seed, 0).integers(num_tasks))

    def report(self, task: int, success: bool) -> None:
        """Tell how an episode ended."""
        with self._lock:
            self._successes[task] = _MEMORY * self._successes[task] + success
            self._trials[task] = _MEMORY * self._trials[task] + 1


def init_state_of(seed: int, place: int | None, states: range) -> int:
    """Return the index of an episode's initial state.

    Args:
        seed: Of the episode.
        place: As chosen.
        states: Those of the task that may be played.
    """
    return states[int(_generator(seed, 1).integers(len(states))) if place is None else place % len(states)]


def validate(task_sampling: str, init_state_rule: str) -> None:
    """Check the names of the rules.

    Raises:
        ValueError: One is unknown.
    """
    for name, value, known in (
        ("task_sampling", task_sampling, TASK_SAMPLING),
        ("init_state_rule", init_state_rule, INIT_STATE_RULES),
    ):
        if value not in known:
            raise ValueError(f"env.{name} must be one of {', '.join(known)}; got {value!r}.")


def _generator(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, _STREAM, purpose])
