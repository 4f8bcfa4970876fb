"""The loop: take episodes → encode and score → advantages → PPO update → publish."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.likelihood import noise_head
from pirl_jax.likelihood.flow import Chain
from pirl_jax.likelihood.modes import level_at
from pirl_jax.policy import FlowPolicy, Params
from pirl_jax.recipe import Recipe
from pirl_jax.rollout.behaviour import Behaviour, Behaviours, Versions, round_to
from pirl_jax.rollout.episode import Episode
from pirl_jax.rollout.groups import Groups
from pirl_jax.rollout.scoring import GAP_ADVICE, ScoredEpisode, make_scorer
from pirl_jax.rollout.tasks import RecentSuccess
from pirl_jax.update import advantage, losses
from pirl_jax.update.batch import Batch, pad_rows
from pirl_jax.update.critic_update import CriticBatch, make_critic_update
from pirl_jax.update.demonstrations import Demonstrations, make_anchor
from pirl_jax.update.policy_update import make_update
from pirl_jax.update.state import TrainState
from pirl_jax.update.values import Evaluate, make_evaluate

logger = logging.getLogger(__name__)

DROPPED = ("stale", "unknown_version", "not_finite", "uniform_group", "uniform_task")
"""Why the loop drops an episode, as counted under ``dropped/``."""


@dataclass(frozen=True)
class Update:
    """What one turn of the loop leaves behind. ``state``'s buffers are donated when the next turn begins."""

    step: int
    state: TrainState
    metrics: dict[str, float]


def run(
    policy: FlowPolicy,
    critic: Callable[..., Any],
    frozen: Params,
    recipe: Recipe,
    state: TrainState,
    *,
    total_steps: int,
    receive: Callable[[float], Episode | None],
    publish: Callable[[int, Behaviour], None],
    versions: Versions,
    stop: threading.Event,
    demonstrations: Demonstrations | None = None,
) -> Iterator[Update]:
    """Train until ``total_steps`` updates are done or ``stop`` is set, yielding after each update.

    Args:
        policy: the flow policy's functions and sizes.
        critic: ``(critic params, inputs, proprio) -> values``.
        frozen: the encoder's parameters, on the device.
        recipe: every number of the method.
        state: where to start, fresh or restored; donated.
        total_steps: updates in the whole run, those before a resume included.
        receive: ``timeout in seconds -> `` the next episode, or None.
        publish: ``(version, what acts)``; must be done with the arrays when it returns.
        versions: source of version numbers.
        stop: ends the loop between two episodes.
        demonstrations: for ``recipe.anchor``, on the device.
    """
    anchor = make_anchor(policy.supervised_loss, recipe.anchor) if recipe.anchor.coef else None
    chain, spread = Chain.of(policy, recipe.noise), noise_head.spread_fn(policy, recipe.noise)
    update = make_update(policy.predict, critic, recipe, chain, spread, anchor)
    critic_update = make_critic_update(critic, recipe)
    evaluate = make_evaluate(policy, critic, recipe)
    score = make_scorer(policy, frozen, recipe)
    behaviours = Behaviours(recipe.max_staleness)
    groups = None
    if recipe.advantage == "group":
        groups = Groups[Collected](recipe.group_size, recipe.group_return_range)
    tasks = None
    if recipe.task_success_range is not None:
        tasks = RecentSuccess(recipe.task_window, recipe.task_success_range)

    def behaviour_of(state: TrainState) -> Behaviour:
        done = int(state.step)
        return Behaviour(round_to(state.params, recipe.push_dtype), done, level_at(recipe.noise, done))

    def push(state: TrainState) -> TrainState:
        version, behaviour = versions.next(), behaviour_of(state)
        publish(version, behaviour)
        behaviours.add(version, behaviour)
        return state.replace(version=jnp.asarray(version, jnp.int32))

    if int(state.version):  # resumed: actors may still hold the version that the checkpoint's parameters had
        behaviours.add(int(state.version), behaviour_of(state))
    state = push(state)

    while int(state.step) < total_steps:
        started = time.monotonic()
        episodes, dropped = _collect(recipe, receive, score, behaviours, int(state.step), stop, groups, tasks)
        if stop.is_set():
            return
        collected = time.monotonic()
        batch, n_valid = make_batch(episodes, recipe, evaluate, state)
        state, metrics = update(state, batch, n_valid, demonstrations)
        if recipe.critic.extra_steps and recipe.advantage == "gae":
            # The next update's values will be asked of the policy as it is now.
            inputs, _ = evaluate(state, batch.features, batch.proprio, batch.domain_id)
            points = CriticBatch(inputs, batch.proprio, batch.value_targets, batch.share)
            state, extra = critic_update(state, points, n_valid)
            metrics |= extra
        metrics = {name: float(value) for name, value in metrics.items()}
        state = push(state)
        finished = time.monotonic()
        metrics |= _episode_metrics(episodes, dropped, int(state.step) - 1)
        if tasks is not None:
            metrics |= {f"train/recent_success_rate/{task}": rate for task, rate in tasks.rates.items()}
        metrics |= {
            "train/collect_s": collected - started,
            "train/update_s": finished - collected,
            "train/samples_per_s": n_valid / (finished - started),
        }
        yield Update(int(state.step), state, metrics)


@dataclass(frozen=True)
class Collected:
    """An episode to learn from."""

    episode: ScoredEpisode
    update: int
    """Updates done when the policy that acted was pushed."""

    @property
    def origin(self) -> tuple[str, int]:
        return self.episode.task, self.episode.seed

    @property
    def total_return(self) -> float:
        return float(self.episode.reward.sum())


def _collect(
    recipe: Recipe,
    receive: Callable[[float], Episode | None],
    score: Callable[[Episode, Behaviour], ScoredEpisode],
    behaviours: Behaviours,
    step: int,
    stop: threading.Event,
    groups: Groups[Collected] | None,
    tasks: RecentSuccess | None = None,
) -> tuple[list[Collected], Counter[str]]:
    collected: list[Collected] = []
    dropped: Counter[str] = Counter()
    if groups is not None:
        dropped["stale"] += groups.drop_before(step - recipe.max_staleness)
    while len(collected) < recipe.episodes_per_update and not stop.is_set():
        episode = receive(0.5)
        if episode is None:
            continue
        behaviour = behaviours.get(episode.version)
        if behaviour is None:
            reason = "stale" if 0 < episode.version < behaviours.oldest else "unknown_version"
            if not dropped[reason]:
                logger.warning("dropping an episode of policy version %d (%s)", episode.version, reason)
            dropped[reason] += 1
            continue
        scored = score(episode, behaviour)
        if not np.isfinite(
            scored.old_log_prob
        ).all():  # an action, token or domain that the policy cannot have seen
            logger.warning("dropping an episode whose log-probability is not finite")
            dropped["not_finite"] += 1
            continue
        if scored.log_prob_gap > scored.gap_tolerance:
            logger.warning(
                "the actor's log-probability differs from the learner's by %.3g nats a chunk: %s",
                scored.log_prob_gap,
                GAP_ADVICE,
            )
        if tasks is not None and not tasks.add(scored.task, scored.success):
            dropped["uniform_task"] += 1
            if dropped["uniform_task"] % recipe.episodes_per_update == 0:
                logger.warning(
                    "%d episodes dropped for this update: their tasks succeed too seldom or too often",
                    dropped["uniform_task"],
                )
            continue
        item = Collected(scored, behaviour.update)
        if groups is None:
            collected.append(item)
        else:
            members, uniform = groups.add(item)
            collected += members
            dropped["uniform_group"] += uniform
    return collected, dropped


def make_batch(
    collected: Sequence[Collected], recipe: Recipe, evaluate: Evaluate, state: TrainState
) -> tuple[Batch, int]:
    """Lay episodes out as decision points with advantages.

    All arrays have ``episodes_per_update · (max_chunks + 1)`` rows whatever the episodes' lengths: first
    every decision point, then the final observations (which only lend their value), then padding.

    Returns:
        The batch, and how many decision points it holds.
    """
    episodes = [item.episode for item in collected]
    E, T = recipe.episodes_per_update, recipe.max_chunks
    capacity = E * (T + 1)
    lengths = np.array([len(episode) for episode in episodes])
    n_valid = int(lengths.sum())
    # Where the decision points of [E, T] arrays lie, in the order of the rows.
    points = np.nonzero(np.arange(T) < lengths[:, None])

    def observed(*arrays: np.ndarray) -> np.ndarray:
        return np.concatenate([x[:-1] for x in arrays] + [x[-1:] for x in arrays])

    def acted(name: str) -> np.ndarray:
        return np.concatenate([getattr(episode, name) for episode in episodes])

    rows = {
        "features": jax.tree.map(observed, *(episode.features for episode in episodes)),
        "proprio": observed(*(episode.proprio for episode in episodes)),
        "domain_id": observed(*(episode.domain_id for episode in episodes)),
        **{name: acted(name) for name in ("latents", "denoise_step", "step_mask", "old_log_prob")},
        "level": np.repeat(np.array([episode.level for episode in episodes], np.float32), lengths),
    }
    rows = jax.device_put(pad_rows(rows, capacity))
    rewards = np.zeros((E, T), np.float32)
    rewards[points] = acted("reward")
    if recipe.advantage == "group":
        relative = advantage.group_relative(jnp.asarray(rewards.sum(1)).reshape(-1, recipe.group_size))
        advantages = np.broadcast_to(np.asarray(relative).reshape(E, 1), (E, T))
        targets, inputs, row_values = np.zeros((E, T), np.float32), None, jnp.zeros(capacity)
    else:
        inputs, row_values = evaluate(state, rows["features"], rows["proprio"], rows["domain_id"])
        advantages, targets = _gae(episodes, rewards, np.asarray(row_values), points, recipe)
    estimates = {"advantages": np.asarray(advantages)[points], "value_targets": np.asarray(targets)[points]}
    if recipe.loss_weighting == "episode":
        executed = np.array([episode.step_mask.sum() for episode in episodes])
        ratios = executed if recipe.aggregation == "action" else lengths
        estimates["advantages"] *= np.repeat(losses.equal_shares(ratios), lengths)
        estimates["share"] = np.repeat(losses.equal_shares(lengths), lengths)
    estimates = jax.device_put(pad_rows(estimates, capacity))
    return Batch(**rows, **estimates, old_values=row_values, critic_input=inputs), n_valid


def _gae(
    episodes: Sequence[ScoredEpisode],
    rewards: np.ndarray,
    row_values: np.ndarray,
    points: tuple[np.ndarray, ...],
    recipe: Recipe,
) -> tuple[Any, Any]:
    """Advantages and value targets [E, T] from the values of ``make_batch``'s rows."""
    E, T = rewards.shape
    lengths = np.array([len(episode) for episode in episodes])
    n_valid = len(points[0])
    grid = np.zeros((E, T + 1), np.float32)
    grid[points] = row_values[:n_valid]
    grid[np.arange(E), lengths] = row_values[n_valid : n_valid + E]
    advantages, targets = advantage.gae(
        jnp.asarray(rewards),
        jnp.asarray(grid),
        jnp.asarray(lengths, jnp.int32),
        jnp.asarray([episode.terminated for episode in episodes]),
        recipe.gamma,
        recipe.gae_lambda,
    )
    if recipe.normalize_advantages:
        advantages = advantage.normalize(advantages, jnp.asarray(np.arange(T) < lengths[:, None]))
    return advantages, targets


def _episode_metrics(collected: Sequence[Collected], dropped: Counter[str], step: int) -> dict[str, float]:
    episodes = [item.episode for item in collected]
    tasks = {episode.task for episode in episodes if episode.task}
    return {
        "train/success_rate": float(np.mean([episode.success for episode in episodes])),
        **{
            f"train/success_rate/{task}": float(np.mean([e.success for e in episodes if e.task == task]))
            for task in sorted(tasks)
        },
        "train/return": float(np.mean([episode.reward.sum() for episode in episodes])),
        "train/episode_chunks": float(np.mean([len(episode) for episode in episodes])),
        "train/episodes": len(episodes),
        "train/noise_level": float(np.mean([episode.level for episode in episodes])),
        "train/stale_fraction": float(np.mean([item.update < step for item in collected])),
        "train/actor_learner_logprob_gap": max(episode.log_prob_gap for episode in episodes),
        **{f"dropped/{reason}": dropped[reason] for reason in DROPPED},
    }
