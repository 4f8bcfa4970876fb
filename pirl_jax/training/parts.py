"""The compiled functions of a run, put together from the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from pirl_jax.likelihood import noise_head
from pirl_jax.likelihood.modes import NOISE_HEAD
from pirl_jax.likelihood.stochastic import StochasticPolicy
from pirl_jax.optim import masters
from pirl_jax.placement import ONE_DEVICE, Placement
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import Recipe, RolloutConfig
from pirl_jax.rollout.scoring import ScoredEpisode, Scorer
from pirl_jax.rows import cut
from pirl_jax.typing import Array, Metrics, Params
from pirl_jax.update import critic
from pirl_jax.update import state as states
from pirl_jax.update.batch import Batch, pad_rows
from pirl_jax.update.critic import Evaluate, ValueFunction, make_evaluate
from pirl_jax.update.critic_steps import CriticBatch, make_critic_update
from pirl_jax.update.estimate import make_batch
from pirl_jax.update.method import Method
from pirl_jax.update.objective import observed
from pirl_jax.update.state import TrainState
from pirl_jax.update.update import Programs, make_update


@dataclass(frozen=True)
class Parts:
    """What a turn of the loop is made of."""

    recipe: Recipe
    policy: FlowPolicy
    score: Scorer
    """``(frozen, episode, who chose its chunks, by version) -> `` its observations encoded and its
    log-densities recomputed."""
    value: ValueFunction
    """The critic."""
    evaluate: Evaluate
    """The critic on many observations, see ``critic.make_evaluate``."""
    programs: Programs
    """Of an update."""
    update: Callable[..., tuple[TrainState, Metrics]]
    """``(state, batch, n_valid, demonstrations=None, interrupted=…) -> (state, metrics)``, see
    ``make_update``; ``state`` is donated."""
    critic_update: Callable[[TrainState, CriticBatch, Array | int], tuple[TrainState, Metrics]] | None
    """Value-only steps; None where the recipe has none."""

    @property
    def method(self) -> Method:
        """What an update does."""
        return self.programs.method

    @property
    def placement(self) -> Placement:
        """Where arrays lie."""
        return self.method.placement

    def with_microbatch(self, size: int) -> Parts:
        """Return parts that work on so many points at a time, with the same compiled functions."""
        optimizer = dataclasses.replace(self.recipe.optimizer, microbatch_size=size)
        recipe = dataclasses.replace(self.recipe, optimizer=optimizer)
        size = block_of(recipe)
        programs = self.programs.with_microbatch(size)
        return dataclasses.replace(
            self,
            recipe=recipe,
            evaluate=make_evaluate(self.policy, self.value, recipe.critic.input, size, self.placement),
            programs=programs,
            update=make_update(programs),
        )

    def batch(self, state: TrainState, episodes: Sequence[ScoredEpisode]) -> tuple[Batch, int]:
        """Return the rows of an update, with advantages, and how many of them are decision points."""
        recipe = self.recipe
        return make_batch(episodes, recipe.rollout, recipe.advantage, recipe.objective, self.evaluate, state)

    def fit_critic(self, state: TrainState, batch: Batch, n_valid: int) -> tuple[TrainState, Metrics]:
        """Take the value-only steps that follow an update, if the recipe has any; ``state`` is donated."""
        if self.critic_update is None:
            return state, {}
        # The next update's values will be asked of the policy as it is now.
        inputs, _ = self.evaluate(state, observed(batch))
        others = batch.proprio, batch.value_targets, batch.share
        points = CriticBatch(*cut((inputs, *others), np.arange(n_valid)))
        return self.critic_update(state, pad_rows(points, capacity_of(self.recipe)), n_valid)


def capacity_of(recipe: Recipe) -> int:
    """Return the most observations that an update's episodes may have."""
    return recipe.rollout.episodes_per_update * (recipe.rollout.max_chunks + 1)


def minibatch_of(recipe: Recipe) -> int:
    """Return how many points a minibatch has at most."""
    return min(recipe.optimizer.minibatch_size, capacity_of(recipe))


def block_of(recipe: Recipe) -> int:
    """Return how many rows are in work at a time."""
    return microbatch_of(recipe) or minibatch_of(recipe)


def scoring_blocks(
    rollout: RolloutConfig, platform: str | None = None, served: bool = False, devices: int = 1
) -> tuple[int, ...]:
    """Return the sizes of the blocks of observations that are encoded and scored at a time.

    A GPU takes many for the time of few. A CPU's time is that of the rows, those that fill a block included.

    Args:
        rollout: of the recipe.
        platform: what runs it; None: JAX's default.
        served: whether the episodes come with most of their observations encoded: often one is left.
        devices: that share a block.
    """
    if (platform or jax.default_backend()) == "cpu":
        block = min(8, rollout.max_chunks + 1)
        sizes = (block, 1) if served and block > 1 else (block,)
    else:
        sizes = 64, 8
    return tuple(-(-size // devices) * devices for size in sizes)


def microbatch_of(recipe: Recipe) -> int | None:
    """Return how many points of a minibatch are in work at a time; None: all.

    Several devices have as many each.
    """
    size = recipe.optimizer.microbatch_size
    size = size if isinstance(size, int) else None
    devices = recipe.mesh.devices
    return size if devices == 1 else -(-(size or minibatch_of(recipe)) // devices) * devices


def method_of(
    policy: FlowPolicy, value: ValueFunction, recipe: Recipe, placement: Placement = ONE_DEVICE
) -> Method:
    """Return what an update of this recipe does."""
    return Method(
        StochasticPolicy.of(policy, recipe.noise),
        recipe.objective,
        recipe.optimizer,
        recipe.critic,
        None if recipe.advantage.estimator == "group" else value,
        recipe.demonstrations,
        policy.supervised_loss if recipe.demonstrations.coef else None,
        capacity_of(recipe),
        microbatch_of(recipe),
        trained_group(policy),
        placement,
    )


def trained_group(policy: FlowPolicy) -> Callable[[str], str | None]:
    """Return ``policy.group`` for all that is trained: the noise head, no policy's, is a group too."""
    return lambda name: NOISE_HEAD if name.startswith(f"{NOISE_HEAD}.") else policy.group(name)


def assemble(
    policy: FlowPolicy,
    value: ValueFunction,
    recipe: Recipe,
    platform: str | None = None,
    placement: Placement = ONE_DEVICE,
) -> Parts:
    """Put the parts of a run together; nothing is compiled before its first call.

    Args:
        policy: what is trained.
        value: its critic (``critic.value_function``).
        recipe: every number of the method.
        platform: what runs them; None: JAX's default.
        placement: where arrays lie, on as many devices as ``recipe.mesh`` has.
    """
    programs = Programs(method_of(policy, value, recipe, placement))
    served, devices = recipe.inference == "served", placement.devices
    method = programs.method
    extra = method.value is not None and recipe.critic.extra_steps
    return Parts(
        recipe,
        policy,
        Scorer(policy, recipe.noise, scoring_blocks(recipe.rollout, platform, served, devices), placement),
        value,
        make_evaluate(policy, value, recipe.critic.input, block_of(recipe), placement),
        programs,
        make_update(programs),
        make_critic_update(method) if extra else None,
    )


def first_state(
    policy: FlowPolicy, recipe: Recipe, dim_proprio: int, seed: int, trainable: Params
) -> TrainState:
    """Return the state before the first update.

    Args:
        policy: what is trained.
        recipe: every number of the method.
        dim_proprio: width of the proprioception that the critic sees.
        seed: of every draw of the run.
        trainable: the base's parameters, in whatever they are stored; copied.
    """
    key = jax.random.PRNGKey(seed)
    critic_params = critic.init(policy, recipe.critic, dim_proprio, key)
    head = noise_head.init(policy, recipe.noise, jax.random.fold_in(key, 1))
    params = masters(trainable) | head
    keep_reference = recipe.objective.reference_kl_coef > 0
    trained = states.trained_leaves(params, trained_group(policy))
    return states.create(params, critic_params, recipe.optimizer, seed, keep_reference, trained)
