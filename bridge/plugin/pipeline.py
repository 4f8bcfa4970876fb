"""Tie the parts of one run together, at the only place that sees them all: the validated config."""

from __future__ import annotations

from lerobot.rl.train_rl import TrainRLServerPipelineConfig

from bridge.plugin import transport
from bridge.plugin.gym_config import ChunkedGymConfig
from bridge.plugin.recipe_config import PiRLConfig

_stock_validate = TrainRLServerPipelineConfig.validate


def validate(cfg: TrainRLServerPipelineConfig) -> None:
    """Validate as LeRobot does; under ``pi_rl`` also bind environment, noise and channel to the run."""
    _stock_validate(cfg)
    algorithm = cfg.algorithm
    if not isinstance(algorithm, PiRLConfig):
        return
    if isinstance(cfg.env, ChunkedGymConfig):
        cfg.env.take_defaults_from(cfg.policy, cfg.seed)
        algorithm.actor_id = cfg.env.actor_id
    if transport.is_actor():
        learner = algorithm.actor_learner_config
        transport.install(f"{learner.learner_host}:{learner.learner_port}", algorithm.spool_size)


TrainRLServerPipelineConfig.validate = validate  # pyright: ignore[reportAttributeAccessIssue]
