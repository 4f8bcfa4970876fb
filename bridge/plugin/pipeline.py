"""Tie the parts of one run together, at the only place that sees them all: the validated config."""

from __future__ import annotations

import math
from functools import partial

from lerobot.rl.train_rl import TrainRLServerPipelineConfig

from bridge.plugin import transport
from bridge.plugin.actor_settings import ActorSettings
from bridge.plugin.libero_config import LiberoConfig
from bridge.plugin.recipe_config import PiRLConfig

_stock_validate = TrainRLServerPipelineConfig.validate


def validate(cfg: TrainRLServerPipelineConfig) -> None:
    """Validate as LeRobot does; under ``pi_rl`` also bind environment, noise and channel to the run."""
    _stock_validate(cfg)
    algorithm = cfg.algorithm
    if not isinstance(algorithm, PiRLConfig):
        return
    if isinstance(cfg.env, ActorSettings):
        cfg.env.take_defaults_from(cfg.policy, cfg.seed)
        algorithm.actor_id = cfg.env.actor_id
        cfg.env.group_size = algorithm.rollout.group_size
        _check_length(cfg.env, algorithm.policy_config.n_action_steps, algorithm.rollout.max_chunks)
    if isinstance(cfg.env, LiberoConfig):
        algorithm.env_action = partial(cfg.env.env_action, cfg.policy)
    if transport.is_actor():
        learner = algorithm.actor_learner_config
        transport.install(f"{learner.learner_host}:{learner.learner_port}", algorithm.spool_size)
        if isinstance(cfg.env, LiberoConfig):
            cfg.env = cfg.env.for_actor()


def _check_length(env: ActorSettings, n_action_steps: int, max_chunks: int) -> None:
    chunks = math.ceil((env.max_steps or 0) / n_action_steps)
    if chunks > max_chunks:
        raise ValueError(
            f"Episodes of up to {env.max_steps} steps make {chunks} chunks of policy.n_action_steps="
            f"{n_action_steps}, and the learner drops those of more than algorithm.rollout.max_chunks="
            f"{max_chunks}. Raise it, or lower env.episode_length."
        )


TrainRLServerPipelineConfig.validate = validate  # pyright: ignore[reportAttributeAccessIssue]
