"""Tie the parts of one run together, at the only place that sees them all: the validated config."""

from __future__ import annotations

import sys
from functools import partial

from lerobot.rl.train_rl import TrainRLServerPipelineConfig

from bridge.plugin import seams, transport
from bridge.plugin.actor_settings import ActorSettings
from bridge.plugin.agreement import agreement
from bridge.plugin.command_line import prepare, pushed_if_asked
from bridge.plugin.libero_config import LiberoConfig
from bridge.plugin.recipe_config import PiRLConfig
from bridge.plugin.tokenizer import settle_tokenizer
from bridge.trust.dialer import Dialer
from pirl_jax.command import shorten_import_warnings
from pirl_jax.ending import end_quickly
from pirl_jax.recipe.renamed import refuse_old_names


def validate(cfg: TrainRLServerPipelineConfig) -> None:
    """Validate as LeRobot does; under ``pi_rl`` also bind environment, noise and channel to the run.

    Raises:
        ValueError: Policy, environment and recipe do not fit each other.
        SystemExit: Likewise, or LeRobot is not what the plugin knows, in LeRobot's actor: with one line, as
            it would print a traceback.
    """
    if not transport.is_actor():
        return _validate(cfg)
    try:
        _validate(cfg)
    except (ValueError, OSError, seams.SeamError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def _validate(cfg: TrainRLServerPipelineConfig) -> None:
    algorithm = cfg.algorithm
    if not isinstance(algorithm, PiRLConfig):
        _stock_validate(cfg)
        return
    if cfg.dataset is None:  # LeRobot fails without
        raise ValueError(
            'the config has no dataset: add "dataset": {"repo_id": "<any name>"}. It is read if '
            "algorithm.demonstrations.coef is above 0."
        )
    if not isinstance(cfg.env, ActorSettings | None) or (cfg.env is None and transport.is_actor()):
        raise ValueError(
            f"env.type={cfg.env and cfg.env.type} cannot be played under algorithm.type=pi_rl, where an "
            "environment takes whole chunks and is simulated: set env.type=libero, or env.type=chunked_gym "
            "with env.gym_id of any gym environment."
        )
    with pushed_if_asked(cfg):
        _stock_validate(cfg)
    if cfg.resume and cfg.checkpoint_path is None and not transport.is_actor():
        raise ValueError(
            "--resume=true goes on from a checkpoint, which says what policy that is: give --config_path="
            "<output_dir>/checkpoints/last/pretrained_model/train_config.json, and no policy.path."
        )
    settle_tokenizer(cfg.policy, cfg.env)
    if isinstance(cfg.env, ActorSettings):
        cfg.env.take_defaults_from(cfg.policy, cfg.seed)
        algorithm.actor_name = str(cfg.env.actor_id)
        cfg.env.bound_length(algorithm.policy_config.n_action_steps, algorithm.rollout.max_chunks)
    if isinstance(cfg.env, LiberoConfig):
        algorithm.env_action = partial(cfg.env.env_action, cfg.policy)
    algorithm.agreement = agreement(cfg)
    if transport.is_actor():
        seams.check_all()
        learner = algorithm.actor_learner_config
        served = algorithm.inference == "served"
        address, dialer = f"{learner.learner_host}:{learner.learner_port}", Dialer(algorithm.security)
        dialer.check(address)
        transport.install(address, notices=served, dialer=dialer)
        if isinstance(cfg.env, LiberoConfig):
            cfg.env = cfg.env.for_actor()


def _prepare() -> None:
    """Read the command line before LeRobot does: old names end the process, and what it would drop counts.

    In one line, as our own commands do: an exception would come out of LeRobot's parser with thirty lines of
    traceback before it.
    """
    try:
        refuse_old_names(sys.argv[1:])
        prepare()
    except ValueError as error:
        sys.exit(f"error: {error}")


_stock_validate = seams.install(seams.VALIDATE, TrainRLServerPipelineConfig, validate)
if transport.is_actor():  # which loads this plugin before it parses its command line
    end_quickly()
    shorten_import_warnings()
    _prepare()
