"""A run's own evaluations: LeRobot's ``env_eval_freq`` and ``eval.n_episodes``, and what they hold out."""

from __future__ import annotations

import logging
from typing import Any

from bridge.plugin.actor_settings import ActorSettings
from pirl_jax.rollout.evaluation import FIRST_NUMBER, spread

log = logging.getLogger(__name__)


def evaluation_freq(cfg: Any) -> int:
    """Return the updates from one evaluation to the next; 0: the run has none.

    LeRobot's own default, which is for the short steps of supervised training, counts as nobody's wish.
    """
    return 0 if cfg.env_eval_freq == type(cfg).env_eval_freq else max(0, cfg.env_eval_freq)


def of_run(cfg: Any) -> dict[str, Any]:
    """Return what a run's config says of its evaluations, by ``training.evaluations.Evaluations``' names."""
    turns = spread(cfg.eval.n_episodes, len(_task_names(cfg)))
    return {"every": evaluation_freq(cfg), "turns": turns, "seed": cfg.seed, "total_updates": cfg.steps}


def check_evaluation(cfg: Any) -> None:
    """Refuse an evaluation that cannot be, and say of what its numbers are not.

    Raises:
        ValueError: It has no episodes, or more than can be numbered.
    """
    n, tasks = cfg.eval.n_episodes, len(_task_names(cfg))
    if n < 1:
        raise ValueError(f"eval.n_episodes must be at least 1 where env_eval_freq is set; got {n}.")
    if (cfg.steps + 1) * n > FIRST_NUMBER:
        raise ValueError(
            f"eval.n_episodes={n} over steps={cfg.steps} updates are more episodes than have numbers "
            f"({FIRST_NUMBER}). Lower one of them."
        )
    if n % tasks:
        log.warning(
            "eval.n_episodes=%d is of the %d tasks together, and no multiple of them: the first %d tasks are "
            "evaluated on %d episodes each, the others on %d.",
            *(n, tasks, n % tasks, n // tasks + 1, n // tasks),
        )
    if isinstance(cfg.env, ActorSettings) and (shared := cfg.env.evaluation_shares()):
        log.warning("%s", shared)


def _task_names(cfg: Any) -> tuple[str, ...]:
    env = cfg.env if isinstance(cfg.env, ActorSettings) else None
    return (env.task_names if env else ()) or ("",)
