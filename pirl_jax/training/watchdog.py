"""Looks at every update: whether it is to be taken back, and whether the run has come to nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from pirl_jax.recipe import WatchdogConfig

logger = logging.getLogger(__name__)


class DivergedError(FloatingPointError):
    """One update after the other was rejected; says why, and what to change."""


class Watchdog:
    """Judges updates by their metrics.

    Args:
        config: what is too much.
        takes_back: whether there is a state to go back to.
    """

    def __init__(self, config: WatchdogConfig, takes_back: bool) -> None:
        self._settings, self._takes_back = config, takes_back
        self._reasons: list[str] = []
        """Of the newest rejected updates in a row."""

    def rejects(self, update: int, metrics: Mapping[str, float]) -> bool:
        """Tell whether an update is to be taken back, and say so."""
        reason = self._reason(metrics)
        if reason is None:
            self._reasons.clear()
            return False
        self._reasons.append(reason)
        done = "it is taken back" if self._takes_back else "it stays, as nothing is kept (watchdog.keep)"
        logger.warning("update %d is rejected, %s: %s", update, done, reason)
        return self._takes_back

    def check(self) -> None:
        """Raise if too many updates in a row were rejected.

        Raises:
            DivergedError: They were.
        """
        if len(self._reasons) >= self._settings.patience:
            raise DivergedError(
                f"{len(self._reasons)} updates in a row were rejected, the last because {self._reasons[-1]}. "
                "Lower algorithm.optimizer.lr, set algorithm.optimizer.target_kl, or look at the run with "
                "python -m pirl_jax.doctor."
            )

    def _reason(self, metrics: Mapping[str, float]) -> str | None:
        broken = [name for name, value in metrics.items() if not math.isfinite(value)]
        if broken:
            return f"{', '.join(sorted(broken)[:3])} {'are' if len(broken) > 1 else 'is'} not finite"
        if metrics["train/skipped_steps"] and not metrics["train/policy_steps"]:
            return "no step of it had finite losses and gradients"
        limit, kl = self._settings.max_kl, metrics["train/approx_kl"]
        if limit is not None and kl > limit:
            return f"its KL is {kl:.3g}, above watchdog.max_kl={limit:g}"
        return None
