"""An evaluation while a run trains: the episodes that it has, and how they ended.

The standard library and NumPy only; the actor imports this file too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pirl_jax.rollout.seeds import evaluation_seed, noise_key

FIRST_NUMBER = 1 << 30
"""Numbers of episodes from here on are evaluations'; those of training are below."""


def is_evaluation(number: int) -> bool:
    """Tell whether an episode of this number is played without noise, to be counted and not learned from."""
    return number >= FIRST_NUMBER


def spread(episodes: int, tasks: int) -> list[tuple[int, int]]:
    """Return task and place of each episode of an evaluation, one task after the other.

    A task's places count from 0; where the tasks do not divide the episodes, the first have one more.
    """
    least, more = divmod(episodes, tasks)
    return [(task, place) for task in range(tasks) for place in range(least + (task < more))]


@dataclass(frozen=True)
class Outcome:
    """How an episode ended."""

    task: str
    """Name of the task, where an environment has several."""
    success: bool
    total_reward: float
    oldest: int
    """Version of the parameters that chose a chunk."""
    newest: int


class Evaluation:
    """The episodes by which one version of the parameters is evaluated.

    All evaluations of a run have the same episodes: seeds, tasks, initial states and first noise follow from
    an episode's place in the evaluation, so that two differ by what was learned between them and by nothing
    else. Only their numbers differ.

    Args:
        update: Updates that its policy has had.
        version: Under which its parameters are pushed; no episode may be of an older one.
        seed: Of the run.
        turns: Task and place of each episode, in order (``spread``).

    Attributes:
        update: As given.
        version: As given.
        numbers: Of its episodes, in order.
        outcomes: Number → how it ended; None: it could not be played. Whoever assigns episodes adds to it.
    """

    def __init__(self, update: int, version: int, seed: int, turns: Sequence[tuple[int, int]]) -> None:
        self.update, self.version = update, version
        self._seed, self._turns = seed, turns
        first = FIRST_NUMBER + update * len(turns)
        self.numbers = range(first, first + len(turns))
        self.outcomes: dict[int, Outcome | None] = {}

    def draws(self, number: int) -> tuple[int, int, int, int]:
        """Return an episode's seed, noise key, task and place."""
        index = self.numbers.index(number)
        # In place of a number, as if it were the first evaluation's: the same in all of them.
        key = noise_key(self._seed, FIRST_NUMBER + index)
        return evaluation_seed(self._seed, index), key, *self._turns[index]

    @property
    def over(self) -> bool:
        """Whether all of its episodes are."""
        return len(self.outcomes) == len(self.numbers)
