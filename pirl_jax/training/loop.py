"""The loop: collect episodes → advantages → update → publish."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from pirl_jax.likelihood.modes import level_at
from pirl_jax.recipe import Recipe
from pirl_jax.rollout.assignments import Assignments
from pirl_jax.rollout.behaviour import Behaviour, Behaviours, version_of
from pirl_jax.rollout.collect import DROPPED, Collected, Collector
from pirl_jax.rollout.encoded import Encoded
from pirl_jax.rollout.episode import Episode
from pirl_jax.rollout.groups import Groups
from pirl_jax.rollout.scoring import ScoredEpisode
from pirl_jax.rollout.shelf import Shelf
from pirl_jax.training import compilations
from pirl_jax.training.evaluations import Evaluated, Evaluations
from pirl_jax.training.kept import Kept
from pirl_jax.training.parts import Parts
from pirl_jax.training.pushes import Pushes
from pirl_jax.training.watchdog import Watchdog
from pirl_jax.typing import Params
from pirl_jax.update.demonstrations import Demonstrations
from pirl_jax.update.state import TrainState
from pirl_jax.update.update import Interrupted

logger = logging.getLogger(__name__)

_POLL_S = 0.1


@dataclass(frozen=True)
class Actors:
    """The way to the actors and back."""

    receive: Callable[[float], Episode | None]
    """``timeout in seconds -> `` the next episode, or None."""
    publish: Callable[[int, Behaviour], None]
    """``(version, what acts)``, with parameters in host memory, as pushed; called on a thread of its own."""
    assignments: Assignments
    """What they play; made with ``window(recipe)`` and the state's number of episodes."""
    report: Callable[[str, bool], None] = lambda task, success: None
    """Told the task and success of every episode in its turn."""
    evaluations: Evaluations = field(default_factory=Evaluations)
    """Of the run; without any unless given."""


@dataclass(frozen=True)
class Update:
    """What one turn of the loop leaves behind. ``state``'s buffers are donated when the next turn begins."""

    number: int
    """Counted from 1 over the whole run."""
    state: TrainState
    metrics: dict[str, float]


def run(
    parts: Parts,
    frozen: Params,
    state: TrainState,
    actors: Actors,
    *,
    total_updates: int,
    stop: threading.Event,
    demonstrations: Demonstrations | None = None,
    release: Callable[[], None] = lambda: None,
    shelf: Shelf | None = None,
    encoded: Encoded | None = None,
    kept: Kept | None = None,
    ahead: bool = True,
) -> Iterator[Update | Evaluated]:
    """Train until ``total_updates`` are done or ``stop`` is set, yielding after each update and evaluation.

    No policy is pushed before the evaluation of the one before it is over, so that it is of one version,
    whoever acts. The learner learns meanwhile, and actors that find nothing more of it go on with training.

    Args:
        parts: the compiled functions of the run (``parts.assemble``).
        frozen: the encoder's parameters, on the device.
        state: where to start, fresh or restored; donated.
        actors: who plays.
        total_updates: in the whole run, those before a resume included.
        stop: ends the loop: between two episodes, or within an update that ``kept`` lets it give up.
        demonstrations: for ``recipe.demonstrations``, on the device.
        release: returns once nobody outside reads the state that was yielded (``CheckpointWriter.release``).
        shelf: where encoded observations lie; None: in memory, all of them.
        encoded: where observations are kept that were encoded to act on; None: nowhere.
        kept: keeps the state before an update: one that is rejected is taken back, one that ``stop`` meets
            is given up. None: it stays, and is finished if it has taken a step; before, its state is whole.
        ahead: whether episodes that arrive during an update are scored meanwhile, on a thread of their own.
    """
    recipe = parts.recipe
    behaviours = Behaviours(recipe.rollout.max_staleness)
    pushes = Pushes(actors.publish, behaviours)
    score = partial(_scored, parts, frozen, shelf, encoded)
    collector = _collector(parts, actors, pushes, score, behaviours, int(state.episodes), stop)

    push, wait = partial(_push, parts, pushes, actors, collector, kept), partial(_goes_on, stop, pushes)
    watchdog = Watchdog(recipe.watchdog, kept is not None)
    interrupted = partial(_gives_up, stop, kept)
    overlap = ahead and recipe.rollout.max_staleness > 0  # else nothing is played during an update
    with pushes:
        state = push(state)
        while int(state.updates) < total_updates:
            started, compiled, scored = time.monotonic(), compilations.count(), collector.scoring_s
            episodes, dropped = collector.collect()
            if stop.is_set():
                return _say_what_waits(collector)
            collected, scoring = time.monotonic(), collector.scoring_s - scored
            _let_go(pushes, release, behaviours, kept)
            released = time.monotonic()
            with collector.meanwhile() if overlap else nullcontext():
                try:
                    state, metrics, n_valid = _update(parts, state, episodes, demonstrations, interrupted)
                except Interrupted:
                    return logger.info("the update that ran is given up; the one before it is kept")
                updated = time.monotonic()
                yield from actors.evaluations.ended(wait)
                held = time.monotonic() - updated
            if (rejected := watchdog.rejects(int(state.updates), metrics)) and kept:
                state = kept.on_device().replace(updates=state.updates)
            state = push(state)
            finished = time.monotonic() - held
            metrics |= _episode_metrics(episodes, dropped, collector.task_rates, int(state.updates) - 1)
            metrics |= {
                **({} if encoded is None else _encoder_calls(episodes)),
                **_seconds(started, scoring, collected, released, finished, pushes),
                "train/score_s": collector.scoring_s - scored,
                "train/samples_per_s": n_valid / (finished - started),
                "train/compilations": compilations.count() - compiled,
                "train/rejected": float(rejected),
            }
            yield Update(int(state.updates), state, metrics)
            watchdog.check()
        yield from actors.evaluations.ended(wait)


def _push(
    parts: Parts,
    pushes: Pushes,
    actors: Actors,
    collector: Collector,
    kept: Kept | None,
    state: TrainState,
) -> TrainState:
    """Start to push the state's policy, and note in the state up to where episodes are settled."""
    version = version_of(int(state.updates))
    pushes.start(version, behaviour_of(state, parts.recipe))
    # An actor that is assigned an episode waits for the version to play it with.
    evaluation = actors.evaluations.begin(int(state.updates), version)
    actors.assignments.publish(version, collector.position, evaluation)
    state = state.replace(episodes=parts.placement.whole(np.int32(collector.position)))
    if kept:
        kept.keep(state)
    return state


def _goes_on(stop: threading.Event, pushes: Pushes) -> bool:
    """Let a moment pass; tell whether there is more to wait for."""
    pushes.check()  # nothing would arrive any more
    return not stop.wait(_POLL_S)


def _gives_up(stop: threading.Event, kept: Kept | None, steps: int) -> bool:
    """Tell whether an update that has taken so many steps is to be given up."""
    return stop.is_set() and (kept is not None or steps == 0)


def _let_go(pushes: Pushes, release: Callable[[], None], behaviours: Behaviours, kept: Kept | None) -> None:
    """Wait until nobody reads the parameters that an update is about to write over."""
    pushes.release()
    release()
    behaviours.let_go()
    if kept:
        kept.release()


def _collector(
    parts: Parts,
    actors: Actors,
    pushes: Pushes,
    score: Callable[[Sequence[Episode], Mapping[int, Behaviour]], list[ScoredEpisode]],
    behaviours: Behaviours,
    first: int,
    stop: threading.Event,
) -> Collector:
    def receive(timeout: float) -> Episode | None:
        pushes.check()  # nothing would arrive any more
        return actors.receive(timeout)

    return Collector(
        parts.recipe.rollout,
        groups_of(parts.recipe),
        receive=receive,
        score=score,
        together=parts.score.sizes[0],
        behaviours=behaviours,
        assignments=actors.assignments,
        first=first,
        stop=stop,
        report=actors.report,
    )


def _scored(
    parts: Parts,
    frozen: Params,
    shelf: Shelf | None,
    encoded: Encoded | None,
    episodes: Sequence[Episode],
    played: Mapping[int, Behaviour],
) -> list[ScoredEpisode]:
    scored = parts.score.together(frozen, episodes, played, encoded)
    if shelf is None:
        return scored
    return [replace(each, features=shelf.put(each.features)) for each in scored]


def _update(
    parts: Parts,
    state: TrainState,
    collected: Sequence[Collected],
    demonstrations: Demonstrations | None,
    interrupted: Callable[[int], bool],
) -> tuple[TrainState, dict[str, float], int]:
    """Return the state after an update, its metrics, and how many points it learned from."""
    batch, n_valid = parts.batch(state, [item.episode for item in collected])
    state, metrics = parts.update(state, batch, n_valid, demonstrations, interrupted)
    state, more = parts.fit_critic(state, batch, n_valid)
    numbers = {name: float(value) for name, value in (metrics | more).items()}
    if reason := at_rest(numbers):
        logger.warning("update %d moved nothing of the policy: %s", int(state.updates), reason)
    return state, numbers, n_valid


def _say_what_waits(collector: Collector) -> None:
    if collector.waiting:
        logger.info(
            "%d episodes had arrived for the next update; a resumed run plays their numbers again",
            collector.waiting,
        )


def window(recipe: Recipe) -> int:
    """Return how many episodes may be open at a time, so that none is too old by its turn."""
    return recipe.rollout.episodes_per_update * (recipe.rollout.max_staleness + 1)


def groups_of(recipe: Recipe) -> Groups | None:
    """Return the groups that a recipe learns from, if it does."""
    if recipe.advantage.estimator != "group":
        return None
    rollout = recipe.rollout
    return Groups(rollout.group_size, recipe.advantage.min_std, rollout.group_return_range)


def at_rest(metrics: Mapping[str, float]) -> str | None:
    """Say why an update has not moved the policy; None if it has, or only the critic was to move."""
    if any(value > 0 for name, value in metrics.items() if name.startswith("train/moved/")):
        return None
    if metrics["train/without_signal"]:
        return "all advantages are 0: no episode earned a reward, or none differs from another."
    if metrics["train/kl_stopped"]:
        return "its first minibatch is beyond optimizer.target_kl. Do actors act as the learner scores?"
    if metrics["train/skipped_steps"]:
        return "its losses or gradients are not finite."
    if metrics["train/policy_steps"]:
        return "its steps round away. Raise optimizer.lr, or look at the advantages: all may be 0."
    return None


def behaviour_of(state: TrainState, recipe: Recipe) -> Behaviour:
    """Return the policy that acts once the state's parameters are pushed."""
    done = int(state.updates)
    return Behaviour(state.params, done, level_at(recipe.noise, done), recipe.push.dtype)


def _encoder_calls(collected: Sequence[Collected]) -> dict[str, float]:
    """Return how often the encoder was applied to an observation of these episodes, on average."""
    calls = sum(item.episode.encoder_calls for item in collected)
    return {"train/encoder_calls": calls / sum(len(item.episode.domain_id) for item in collected)}


def _seconds(
    started: float, scoring: float, collected: float, released: float, finished: float, pushes: Pushes
) -> dict[str, float]:
    """Return what a turn has taken, and the newest push that is over, which goes on beside it."""
    return {
        "train/collect_s": collected - started,
        "train/wait_s": collected - started - scoring,
        "train/release_s": released - collected,
        "train/update_s": finished - released,
        "train/push_s": pushes.seconds,
    }


def _episode_metrics(
    collected: Sequence[Collected], dropped: Counter[str], recent: Mapping[str, float], update: int
) -> dict[str, float]:
    episodes = [item.episode for item in collected]
    tasks = {episode.task for episode in episodes if episode.task}
    counts = np.concatenate([episode.counts for episode in episodes])
    levels = np.concatenate([episode.level for episode in episodes])
    return {
        "train/success_rate": float(np.mean([episode.success for episode in episodes])),
        **{
            f"train/success_rate/{task}": float(np.mean([e.success for e in episodes if e.task == task]))
            for task in sorted(tasks)
        },
        **{f"train/recent_success_rate/{task}": rate for task, rate in recent.items()},
        "train/return": float(np.mean([episode.reward.sum() for episode in episodes])),
        "train/episode_chunks": float(np.mean([len(episode) for episode in episodes])),
        "train/episodes": len(episodes),
        "train/noise_level": float(np.mean(levels[counts])),
        "train/stale_fraction": float(np.mean(np.concatenate([item.update for item in collected]) < update)),
        "train/actor_learner_logprob_gap": max(episode.log_prob_gap for episode in episodes),
        "dropped/stale_chunks": int((~counts).sum()),
        **{f"dropped/{reason}": dropped[reason] for reason in DROPPED},
    }
