"""The learner's functions with a whole recipe in place of the sections that each of them reads.

A test names the numbers that it is about; in which section they stand is no part of its promise.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from pirl_jax.likelihood.chain import Chain
from pirl_jax.likelihood.stochastic import StochasticPolicy
from pirl_jax.linear import Precision
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import Recipe
from pirl_jax.rollout import scoring
from pirl_jax.rollout.assignments import Assignments, Verdict
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.rollout.collect import Collected
from pirl_jax.rollout.episode import Episode
from pirl_jax.training import loop, parts
from pirl_jax.training.evaluations import Evaluations
from pirl_jax.update import critic as critics
from pirl_jax.update import critic_steps, estimate, state, update
from pirl_jax.update.batch import Batch
from pirl_jax.update.method import Method, first_name

SECTIONS = ("rollout", "advantage", "objective", "optimizer", "push", "critic")
"""Where a number is looked for, in this order; ``lr`` is the policy's."""


def make_recipe(base: Recipe | None = None, **changes: Any) -> Recipe:
    """Return a recipe with some numbers changed; ``noise``, ``critic`` and ``demonstrations`` come whole."""
    base = base or Recipe()
    sections = {name: getattr(base, name) for name in (f.name for f in dataclasses.fields(Recipe))}
    sections |= {name: changes.pop(name) for name in list(changes) if name in sections}
    numbers: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        section = next(s for s in SECTIONS if hasattr(sections[s], name))
        numbers.setdefault(section, {})[name] = value
    sections |= {name: dataclasses.replace(sections[name], **values) for name, values in numbers.items()}
    return dataclasses.replace(base, **sections)


@dataclass(frozen=True, eq=False)
class FunctionPolicy:
    """``pirl_jax.policy.FlowPolicy`` out of plain functions and sizes."""

    split: Callable[..., Any]
    merge: Callable[..., Any]
    encode: Callable[..., Any]
    predict: Callable[..., Any]
    supervised_loss: Callable[..., Any]
    critic_inputs: Mapping[str, Callable[..., Any]]
    prepare_proprio: Callable[..., Any]
    summarize: Callable[..., Any]
    summary_dim: int
    num_denoising_steps: int
    chunk_size: int
    dim_action: int
    channel_groups: Mapping[str, tuple[int, ...]]
    critic_input_dims: Mapping[str, int] = dataclasses.field(default_factory=dict)
    gripper_logits: tuple[int, ...] = ()
    parametrization: str = "data"
    head_precision: Precision = "highest"
    group: Callable[[str], str | None] = first_name

    def critic_input(self, kind: str, *inputs: Any) -> Any:
        """Call the function of that name."""
        return self.critic_inputs[kind](*inputs)


def create(params: Any, critic_params: Any, recipe: Recipe, seed: int) -> state.TrainState:
    """``state.create``."""
    keep_reference = recipe.objective.reference_kl_coef > 0
    return state.create(params, critic_params, recipe.optimizer, seed, keep_reference)


def method_of(
    predict: Callable[..., Any],
    critic: critics.ValueFunction,
    recipe: Recipe,
    chain: Chain,
    log_multiplier: Callable[..., Any] | None = None,
    supervised_loss: Callable[..., Any] | None = None,
) -> Method:
    """Return a ``Method`` of functions."""
    return Method(
        StochasticPolicy(chain, predict, log_multiplier),
        recipe.objective,
        recipe.optimizer,
        recipe.critic,
        None if recipe.advantage.estimator == "group" else critic,
        recipe.demonstrations,
        supervised_loss,
    )


def make_update(*args: Any, **options: Any) -> Callable[..., Any]:
    """``update.make_update``; arguments as for ``method_of``."""
    return update.make_update(update.Programs(method_of(*args, **options)))


def make_critic_update(critic: critics.ValueFunction, recipe: Recipe) -> Callable[..., Any]:
    """``critic_steps.make_critic_update``, which needs no policy."""
    policy: Any = None
    return critic_steps.make_critic_update(
        Method(policy, recipe.objective, recipe.optimizer, recipe.critic, critic, recipe.demonstrations)
    )


def make_evaluate(policy: FlowPolicy, critic: critics.ValueFunction, recipe: Recipe) -> critics.Evaluate:
    """``critic.make_evaluate``."""
    return critics.make_evaluate(policy, critic, recipe.critic.input, parts.block_of(recipe))


def make_scorer(policy: FlowPolicy, frozen: Any, recipe: Recipe) -> Callable[..., Any]:
    """``scoring.Scorer`` with its encoder, for episodes that one policy has played."""
    score = scoring.Scorer(policy, recipe.noise, parts.scoring_blocks(recipe.rollout))
    return lambda episode, behaviour: score(frozen, episode, played_by(behaviour, episode))


def played_by(behaviour: Behaviour, *episodes: Episode) -> dict[int, Behaviour]:
    """Return who has chosen the episodes' chunks: one policy, whatever versions they name."""
    return {int(version): behaviour for episode in episodes for version in episode.version}


def collected(episode: scoring.ScoredEpisode, update: int = 0) -> Collected:
    """Return an episode of policies that were all pushed after so many updates."""
    return Collected(episode, np.full(len(episode), update))


def make_batch(
    collected: Sequence[Collected], recipe: Recipe, evaluate: critics.Evaluate, start: state.TrainState
) -> tuple[Batch, int]:
    """``estimate.make_batch``."""
    episodes = [item.episode for item in collected]
    sections = recipe.rollout, recipe.advantage, recipe.objective
    return estimate.make_batch(episodes, *sections, evaluate, start)


def run(
    policy: FlowPolicy,
    critic: critics.ValueFunction,
    frozen: Any,
    recipe: Recipe,
    start: state.TrainState,
    *,
    total_steps: int,
    receive: Any,
    publish: Any,
    stop: Any,
    demonstrations: Any = None,
    kept: Any = None,
    encoded: Any = None,
    evaluations: Evaluations | None = None,
    evaluate: Any = None,
) -> Iterator[Any]:
    """``loop.run`` with one actor, which plays what is assigned and knows its true log-probabilities.

    Episodes of evaluations go to ``evaluate(assignments, assigned)``.
    """
    assembled = parts.assemble(policy, critic, recipe)
    assignments = Assignments(loop.window(recipe), 0, recipe.rollout.group_size, first=int(start.episodes))
    behaviours: dict[int, Any] = {}

    def push(version: int, behaviour: Any) -> None:
        # A copy: the next update writes over the parameters.
        behaviours[version] = dataclasses.replace(behaviour, params=jax.tree.map(np.array, behaviour.params))
        publish(version, behaviours[version])

    def play(timeout: float) -> Any:
        if not timeout:  # nothing arrives while nobody waits
            return None
        assigned = assignments.next("toy", 0)
        while assigned is not None and assigned.evaluates:
            evaluate(assignments, assigned)
            assigned = assignments.next("toy", 0)
        assert assigned is not None
        while assigned.version not in behaviours:  # as an actor waits for it
            time.sleep(0.001)
        episode = receive(timeout)
        if episode is None:
            assignments.keep("toy", ())
            return None
        assert assignments.deliver(assigned.number, assigned.seed) is Verdict.WANTED
        if played := {v: behaviours[v] for v in map(int, episode.version) if v in behaviours}:
            scored = assembled.score(frozen, episode, played)
            episode = dataclasses.replace(episode, log_prob=scored.old_log_prob)
        return dataclasses.replace(episode, number=assigned.number)

    return loop.run(
        assembled,
        frozen,
        start,
        loop.Actors(play, push, assignments, evaluations=evaluations or Evaluations()),
        total_updates=total_steps,
        stop=stop,
        demonstrations=demonstrations,
        kept=kept,
        encoded=encoded,
        ahead=False,  # the order in which a test's episodes arrive does not hang on how long an update takes
    )
