"""Which task and which initial state an actor plays next: a rule, so that a run can be repeated."""

from __future__ import annotations

import numpy as np

TASK_SAMPLING = ("uniform", "round_robin", "weighted")
INIT_STATE_RULES = ("random", "sequential")

_STREAM = 0x11BE20
"""Keeps these draws apart from others made of the same seed."""

_MEMORY = 0.95
_LEAST_WEIGHT = 0.05
_STRIDE = 17
"""Initial states between two actors' first ones; has no factor in common with LIBERO's 50."""


class Schedule:
    """Chooses tasks and initial states.

    Args:
        num_tasks: To choose from.
        task_sampling: ``uniform``: at random; ``round_robin``: in turn, each actor starting with another;
            ``weighted``: at random, more often what this actor fails at (weight 1 - success rate over about
            the last 20 episodes of the task, at least 0.05).
        init_state_rule: ``random``; ``sequential``: a task's states in turn, each actor starting elsewhere.
        actor_id: Of this actor.

    Raises:
        ValueError: An unknown rule, or no tasks.
    """

    def __init__(
        self,
        num_tasks: int,
        task_sampling: str = "uniform",
        init_state_rule: str = "random",
        actor_id: int = 0,
    ) -> None:
        validate(task_sampling, init_state_rule)
        if num_tasks < 1:
            raise ValueError("A schedule needs at least one task.")
        self._task_sampling = task_sampling
        self._init_state_rule = init_state_rule
        self._actor_id = actor_id
        self._episodes = 0
        self._visits = np.zeros(num_tasks, int)
        # One imagined success and failure, so that nothing is certain before it was tried.
        self._successes, self._trials = np.ones(num_tasks), np.full(num_tasks, 2.0)

    def next_task(self, seed: int) -> int:
        """Return the task of the next episode, whose seed this is."""
        num_tasks = len(self._visits)
        if self._task_sampling == "round_robin":
            task = (self._actor_id + self._episodes) % num_tasks
        elif self._task_sampling == "weighted":
            weights = np.maximum(1 - self._successes / self._trials, _LEAST_WEIGHT)
            task = int(_generator(seed, 0).choice(num_tasks, p=weights / weights.sum()))
        else:
            task = int(_generator(seed, 0).integers(num_tasks))
        self._episodes += 1
        self._visits[task] += 1
        return task

    def init_state(self, seed: int, task: int, num_states: int) -> int:
        """Return the initial state for the task just chosen."""
        if self._init_state_rule == "sequential":
            return int(_STRIDE * self._actor_id + self._visits[task] - 1) % num_states
        return int(_generator(seed, 1).integers(num_states))

    def report(self, task: int, success: bool) -> None:
        """Tell how an episode ended."""
        self._successes[task] = _MEMORY * self._successes[task] + success
        self._trials[task] = _MEMORY * self._trials[task] + 1


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
