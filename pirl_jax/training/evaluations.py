"""When a run evaluates its policy while it trains, and what comes of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from pirl_jax.rollout.evaluation import Evaluation, Outcome
from pirl_jax.training.interval import wilson
from pirl_jax.training.metrics import N_EPISODES, PC_SUCCESS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation has found."""

    update: int
    """Updates that its policy has had."""
    metrics: dict[str, float]


class Evaluations:
    """A run's evaluations, one at a time: before its first update, after each so many, after its last.

    Where a run goes on, one that was due and is not on record is made of the policy that is there now.

    Args:
        every: Updates from one to the next; 0: never.
        turns: Task and place of each episode (``rollout.evaluation.spread``).
        seed: Of the run.
        total_updates: Of the run.
        recorded: Update of the newest that is on record; None: there is none.
    """

    def __init__(
        self,
        every: int = 0,
        turns: Sequence[tuple[int, int]] = (),
        seed: int = 0,
        total_updates: int = 0,
        recorded: int | None = None,
    ) -> None:
        self._every, self._turns, self._seed, self._total = every, turns, seed, total_updates
        self._newest = -1 if recorded is None else recorded
        self._under_way: Evaluation | None = None
        self._begun = 0.0

    def begin(self, update: int, version: int) -> Evaluation | None:
        """Return the evaluation of a policy that is about to be pushed; None if none is due.

        Args:
            update: Updates that it has had.
            version: Under which it is pushed.
        """
        if self._under_way is not None or not self._is_due(update):
            return None
        self._newest, self._begun = update, time.monotonic()
        self._under_way = Evaluation(update, version, self._seed, self._turns)
        logger.info("update %d is evaluated: %d episodes without noise", update, len(self._turns))
        return self._under_way

    def ended(self, wait: Callable[[], bool]) -> Iterator[Evaluated]:
        """Yield what the evaluation under way has found, if there is one, once all of its episodes are over.

        Args:
            wait: Called while they are not; False: there is no more waiting for them, and nothing is found.
        """
        if self._under_way is None:
            return
        started = time.monotonic()
        while not self._under_way.over:
            if not wait():
                return
        now, evaluation = time.monotonic(), self._under_way
        self._under_way = None
        seconds = {"eval/eval_s": now - self._begun, "eval/wait_s": now - started}
        yield Evaluated(evaluation.update, found(evaluation) | seconds)

    def _is_due(self, update: int) -> bool:
        if not self._every:
            return False
        return self._newest < update - update % self._every or self._newest < update == self._total


def found(evaluation: Evaluation) -> dict[str, float]:
    """Return the metrics of an evaluation that is over; rates in percent, as LeRobot has them."""
    outcomes = [outcome for outcome in evaluation.outcomes.values() if outcome is not None]
    given_up = len(evaluation.numbers) - len(outcomes)
    counts = {N_EPISODES: float(len(outcomes)), "eval/given_up": float(given_up)}
    if given_up:
        logger.warning(
            "%d of %d evaluation episodes could not be played: look at the logs of learner and actors",
            *(given_up, len(evaluation.numbers)),
        )
    if not outcomes:
        return counts
    low, high = wilson(sum(outcome.success for outcome in outcomes), len(outcomes))
    tasks = sorted({outcome.task for outcome in outcomes if outcome.task})
    return {
        PC_SUCCESS: pc_success(outcomes),
        "eval/interval_low": 100 * low,
        "eval/interval_high": 100 * high,
        **counts,
        **{f"{PC_SUCCESS}/{task}": pc_success([o for o in outcomes if o.task == task]) for task in tasks},
        "eval/avg_sum_reward": fmean(outcome.total_reward for outcome in outcomes),
        "eval/version_lag": float(max(outcome.newest for outcome in outcomes) - evaluation.version),
    }


def pc_success(outcomes: Sequence[Outcome]) -> float:
    """Return how many of these episodes succeeded, in percent."""
    return 100 * fmean(outcome.success for outcome in outcomes)
