"""What stays of a run's turns: rows of metrics, and now and then a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pirl_jax.training.evaluations import Evaluated
from pirl_jax.training.loop import Update
from pirl_jax.training.metrics import MetricsWriter
from pirl_jax.training.saves import Saves


def written(
    turns: Iterable[Update | Evaluated],
    log: MetricsWriter,
    saves: Saves,
    more: Callable[[], dict[str, float]],
    note: Callable[[Evaluated], None],
    done: int,
) -> int:
    """Follow the turns of a run to its end and return the updates that are done.

    Args:
        turns: Of ``loop.run``.
        log: Is given a row an update.
        saves: Is told of each update.
        more: Metrics of whatever runs beside the loop.
        note: What is done with an evaluation.
        done: Updates before the first turn.
    """
    for turn in turns:
        if isinstance(turn, Evaluated):
            note(turn)
            continue
        done = turn.number
        log.write(done, turn.metrics | more())
        saves.after(done, turn.state, turn.metrics["train/success_rate"])
    return done
