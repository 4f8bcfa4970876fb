"""Where numbers go: ``metrics.jsonl`` and the console; trackers are in ``trackers``."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pirl_jax.console.duration import duration
from pirl_jax.files import write_text
from pirl_jax.run_folder.layout import METRICS

logger = logging.getLogger(__name__)


Sink = Callable[[int, Mapping[str, float]], None]
"""``sink(step, metrics)``: what every tracker is."""

UPDATE_S = "train/update_s"
PC_SUCCESS, N_EPISODES = "eval/pc_success", "eval/n_episodes"
"""Of a row that is an evaluation's: the rate in percent, unless nothing could be played, and of how many."""

CONSOLE_KEYS = (
    "train/success_rate",
    "train/approx_kl",
    "train/clip_fraction",
    "train/explained_variance",
    "train/value_loss",
    "train/lr",
    "train/stale_fraction",
    "train/actor_learner_logprob_gap",
    UPDATE_S,
    PC_SUCCESS,
    "eval/interval_low",
    "eval/interval_high",
    N_EPISODES,
)


class MetricsWriter:
    """Writes one JSON object a line, flushed at once, and a line on the console; owns the open file.

    Args:
        folder: ``metrics.jsonl`` goes there; made if missing.
        resume_step: rows of an existing file up to that step stay. What a killed run wrote after its last
            checkpoint, a half-written line included, will be written again.
        sinks: trackers to pass every row to.
        steps: of the whole run, for the line on the console; None: it does not say how much is left.
        keys: what that line shows of a row.
    """

    def __init__(
        self,
        folder: str | Path,
        resume_step: int = 0,
        sinks: Sequence[Sink] = (),
        steps: int | None = None,
        keys: Sequence[str] = CONSOLE_KEYS,
    ):
        self.path, self._steps, self._keys = Path(folder) / METRICS, steps, keys
        kept = [row for row in read(self.path) if row["step"] <= resume_step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._sinks = tuple(sinks)
        logger.info("metrics: %s, one JSON object a line", self.path)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append ``{"step", "time" (Unix seconds), **metrics}``; what is not finite becomes null."""
        values = to_floats(metrics)
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"step": int(step), "time": round(time.time(), 3), **row}, allow_nan=False)
        self._file.write(line + "\n")
        self._file.flush()
        logger.info(console_line(step, values, self._keys, self._steps))
        for sink in self._sinks:
            sink(int(step), values)

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def to_floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Python floats of scalars of any kind, those of a device included."""
    return {name: float(value) for name, value in metrics.items()}


def read(path: str | Path) -> list[dict[str, Any]]:
    """Read a metrics file, none being empty; lines that are no row are skipped with a warning."""
    path = Path(path)
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        else:
            logger.warning("%s:%d is not a metrics row; skipped.", path, number)
    return rows


def evaluated(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of a run's evaluations: ``step`` is how many updates their policies have had."""
    return [row for row in rows if N_EPISODES in row]


def updates(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of a run's updates, one each."""
    return [row for row in rows if N_EPISODES not in row]


def console_line(
    step: int, metrics: Mapping[str, float], keys: Sequence[str] = CONSOLE_KEYS, steps: int | None = None
) -> str:
    """``update 12 | success_rate 0.43 | approx_kl 0.012 | …``, of the keys that are there.

    Given the steps of a whole run, ``step 25 of 100 | loss 2.46 | … | 40 s left``, as long as one takes now.
    """
    parts = [f"{key.rsplit('/', 1)[-1]} {float(metrics[key]):.3g}" for key in keys if key in metrics]
    if steps is None:
        return " | ".join([f"update {step}", *parts])
    if UPDATE_S in metrics and step < steps:
        parts.append(f"{duration((steps - step) * float(metrics[UPDATE_S]))} left")
    return " | ".join([f"step {step} of {steps}", *parts])
