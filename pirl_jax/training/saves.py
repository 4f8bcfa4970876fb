"""When a run is saved, and what its checkpoints say of it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pirl_jax.run_folder.layout import EVALUATED, SCORE
from pirl_jax.training.checkpoint import CheckpointWriter, Export, save_last
from pirl_jax.training.kept import Kept


@dataclass(frozen=True)
class Cadence:
    """When a run is saved; after its last update in any case.

    Attributes:
        updates: after each so many; 0: never meanwhile.
        minutes: if so many have passed since the last time; 0: however long it takes.
        saves: False: never, not at the end either.
        evaluated: besides, after each so many, which are those that are evaluated; 0: none.
    """

    updates: int
    minutes: float = 0
    saves: bool = True
    evaluated: int = 0

    @property
    def every(self) -> int:
        """Updates between two that are saved, at the closest; 0: none is meanwhile."""
        return math.gcd(self.updates, self.evaluated)

    def due(self, update: int, seconds: float) -> bool:
        """Tell whether an update is to be saved, ``seconds`` after the last one that was."""
        often = any(every > 0 and update % every == 0 for every in (self.updates, self.evaluated))
        return self.saves and (often or 0 < self.minutes * 60 <= seconds)


class Saves:
    """Has a run saved as its cadence says, and again where that has failed.

    Args:
        writer: of the run.
        cadence: when.
        export: see ``CheckpointWriter.save``.
        about: what every checkpoint of the run says beside the step. Each also says, as its score, the
            success rate since the one before, where there is one, and what its evaluation has found.
        kept: has the state of the newest update, where an update that fails would take it along; None: no one
            has.
    """

    def __init__(
        self,
        writer: CheckpointWriter,
        cadence: Cadence,
        export: Export,
        about: Mapping[str, Any],
        kept: Kept | None = None,
    ) -> None:
        self._writer, self._cadence, self._kept = writer, cadence, kept
        self._export, self._about = export, about
        self._rates: list[float] = []
        self._told = 0
        """How many of them the newest checkpoint was told."""
        self._since = time.monotonic()
        self._newest: tuple[int, Any] | None = None
        self._evaluated: tuple[int, float] | None = None
        self._lock = threading.RLock()

    def after(self, update: int, state: Any, success_rate: float | None = None) -> None:
        """Start to save an update, if it is time; ``CheckpointWriter.release`` says until when it is read."""
        with self._lock:
            self._newest = update, state
            if success_rate is not None:
                self._rates.append(success_rate)
            again = self._cadence.saves and self._writer.to_be_tried_again
            if again or self._cadence.due(update, time.monotonic() - self._since):
                self._since = time.monotonic()
                self._writer.save(update, state, self._export, self._said(update))

    def evaluated(self, update: int, pc_success: float) -> None:
        """Note what an update's evaluation has found; its checkpoint, written before or after, says it."""
        with self._lock:
            self._evaluated = update, pc_success
            self._writer.add(update, {EVALUATED: pc_success})

    def last(self) -> None:
        """Start to save the newest update, unless it is saved or lost."""
        with self._lock:
            if not self._cadence.saves or self._newest is None:
                return
            update, state = self._newest
            if self._kept is not None:  # one further, if this comes between its end and `after`
                state = self._kept.state
                update = int(state.updates)
            save_last(self._writer, update, state, self._export, self._said(update))

    def at_once(self, stop: threading.Event) -> None:
        """Have what is kept saved as soon as a signal comes, whatever the run is in the middle of.

        A step of a large policy takes a CPU minutes, in which nothing can be asked.
        """

        def wait_and_save() -> None:
            stop.wait()
            self.last()

        threading.Thread(target=wait_and_save, name="save-at-once", daemon=True).start()

    def _said(self, update: int) -> dict[str, Any]:
        if self._writer.saved is not None:  # else the last one could not be written
            del self._rates[: self._told]
        score = {SCORE: fmean(self._rates)} if self._rates else {}
        self._told = len(self._rates)
        if self._evaluated is not None and self._evaluated[0] == update:
            score[EVALUATED] = self._evaluated[1]
        return {**self._about, **score}
