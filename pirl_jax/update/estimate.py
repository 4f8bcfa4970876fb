"""Collected episodes as the rows of an update, with an advantage and a value target for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.likelihood.stochastic import Observed
from pirl_jax.recipe import AdvantageConfig, ObjectiveConfig, RolloutConfig
from pirl_jax.rollout.scoring import ScoredEpisode
from pirl_jax.rows import Joined
from pirl_jax.update import advantage, losses
from pirl_jax.update.batch import Batch
from pirl_jax.update.critic import Evaluate
from pirl_jax.update.state import TrainState

_OF_CHUNKS = ("latents", "denoise_step", "level", "step_mask", "old_log_prob")
_compiled_gae = jax.jit(advantage.gae, static_argnames=("gamma", "gae_lambda"))
_normalize = jax.jit(advantage.normalize, static_argnames="min_std")


def make_batch(
    episodes: Sequence[ScoredEpisode],
    rollout: RolloutConfig,
    config: AdvantageConfig,
    objective: ObjectiveConfig,
    evaluate: Evaluate,
    state: TrainState,
) -> tuple[Batch, int]:
    """Lay episodes out as decision points with advantages.

    Everything stays in host memory, and features where the episodes have them. Rows are every decision
    point, and where observations are concerned, behind them the final ones, which only lend their value.

    Args:
        episodes: as many as the update takes; groups in a row.
        rollout: sizes.
        config: how advantages are estimated.
        objective: how points are weighted, and whose density the behaviour policy's is.
        evaluate: the critic (``critic.make_evaluate``).
        state: parameters of policy and critic.

    Returns:
        The batch, and how many decision points it holds.
    """
    E, T = rollout.episodes_per_update, rollout.max_chunks
    lengths = np.array([len(episode) for episode in episodes])
    # Where the decision points of [E, T] arrays lie, in the order of the rows.
    points = np.nonzero(np.arange(T) < lengths[:, None])
    rows = _rows(episodes)
    if objective.behaviour_log_prob == "actor":
        rows["old_log_prob"] = _acted(episodes, "actor_log_prob")
    rewards = np.zeros((E, T), np.float32)
    rewards[points] = _acted(episodes, "reward")
    if config.estimator == "group":
        returns = jnp.asarray(rewards.sum(1)).reshape(-1, rollout.group_size)
        relative = advantage.group_relative(returns, config.min_std)
        advantages = np.broadcast_to(np.asarray(relative).reshape(E, 1), (E, T))
        targets, inputs, row_values = np.zeros((E, T), np.float32), None, np.zeros(len(points[0]), np.float32)
    else:
        observed = Observed(rows["features"], rows["proprio"], rows["domain_id"])
        inputs, row_values = evaluate(state, observed)
        advantages, targets = _gae(episodes, rewards, row_values, points, config)
        if not rewards.any():  # what is left would be the critic's errors
            advantages = np.zeros((E, T), np.float32)
        elif config.normalize:
            weight = np.zeros((E, T), np.float32)
            weight[points] = _loss_weights(episodes, objective)
            advantages = _normalize(advantages, jnp.asarray(weight), min_std=config.min_std)
    counts = _acted(episodes, "counts")
    estimates: dict[str, Any] = {
        "advantages": np.where(counts, np.asarray(advantages)[points], np.float32(0)),
        "value_targets": np.asarray(targets)[points],
    }
    if objective.loss_weighting == "episode":
        chunks = np.array([episode.counts.sum() for episode in episodes])
        executed = np.array([episode.step_mask.sum() for episode in episodes])
        ratios = executed if objective.aggregation == "action" else chunks
        estimates["advantages"] *= np.repeat(losses.equal_shares(ratios), lengths)
        estimates["share"] = np.repeat(losses.equal_shares(lengths), lengths)
        estimates["policy_share"] = np.repeat(losses.equal_shares(chunks), lengths)
    estimates |= {"old_values": row_values, "critic_input": inputs}
    return Batch(**rows, **estimates), int(lengths.sum())


def _loss_weights(episodes: Sequence[ScoredEpisode], objective: ObjectiveConfig) -> np.ndarray:
    """Return how much each decision point counts in the policy's loss, up to a factor of all.

    Nothing if its policy is not known any more: such points are no part of the mean and the standard
    deviation that advantages are normalised with, though GAE goes through them.
    """
    steps = [episode.step_mask.sum(1) for episode in episodes]
    if objective.aggregation == "chunk":
        steps = [episode.counts.astype(float) for episode in episodes]
    if objective.loss_weighting == "episode":
        steps = [each / each.sum() for each in steps]
    return np.concatenate(steps).astype(np.float32)


def _rows(episodes: Sequence[ScoredEpisode]) -> dict[str, Any]:
    """Concatenate what comes from the episodes themselves."""

    def observed(*arrays: np.ndarray) -> Joined:
        return Joined([x[:-1] for x in arrays] + [x[-1:] for x in arrays])

    return {
        "features": jax.tree.map(observed, *(episode.features for episode in episodes)),
        "proprio": observed(*(episode.proprio for episode in episodes)),
        "domain_id": observed(*(episode.domain_id for episode in episodes)),
        **{name: _acted(episodes, name) for name in _OF_CHUNKS},
    }


def _acted(episodes: Sequence[ScoredEpisode], name: str) -> np.ndarray:
    return np.concatenate([getattr(episode, name) for episode in episodes])


def _gae(
    episodes: Sequence[ScoredEpisode],
    rewards: np.ndarray,
    row_values: np.ndarray,
    points: tuple[np.ndarray, ...],
    config: AdvantageConfig,
) -> tuple[Any, Any]:
    """Advantages and value targets [E, T] from the values of ``make_batch``'s rows."""
    E, T = rewards.shape
    lengths = np.array([len(episode) for episode in episodes])
    n_valid = len(points[0])
    grid = np.zeros((E, T + 1), np.float32)
    grid[points] = row_values[:n_valid]
    grid[np.arange(E), lengths] = row_values[n_valid : n_valid + E]
    return _compiled_gae(
        jnp.asarray(rewards),
        jnp.asarray(grid),
        jnp.asarray(lengths, jnp.int32),
        jnp.asarray([episode.terminated or not config.bootstrap_truncation for episode in episodes]),
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
    )
