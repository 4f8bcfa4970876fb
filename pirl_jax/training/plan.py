"""What a run's programs take of a device, known before anything runs: by compiling them for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from pirl_jax.likelihood import noise_head
from pirl_jax.likelihood.modes import num_latents
from pirl_jax.likelihood.stochastic import Observed
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import Recipe
from pirl_jax.training.parts import method_of
from pirl_jax.typing import Params, PyTree
from pirl_jax.update import critic
from pirl_jax.update import state as states
from pirl_jax.update.batch import Batch
from pirl_jax.update.critic import ValueFunction
from pirl_jax.update.method import Method
from pirl_jax.update.objective import FixedPolicies, Minibatch, distribution
from pirl_jax.update.state import TrainState
from pirl_jax.update.update import Programs, metric_names, progress_of


@dataclass(frozen=True)
class Observation:
    """Shapes of one observation."""

    images: tuple[int, ...]
    """[V, C, h, w]."""
    num_tokens: int
    dim_proprio: int


@dataclass(frozen=True)
class Memory:
    """A program's memory on its device, in bytes."""

    arguments: int
    temporaries: int
    outputs: int
    """What is not written into arguments that are donated."""

    @property
    def working(self) -> int:
        """Beside the arguments, which lie there anyway."""
        return self.temporaries + self.outputs


def memory_of(compiled: Any) -> Memory:
    """Read the memory analysis of what ``jax.jit(…).lower(…).compile()`` returns."""
    analysis = compiled.memory_analysis()
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return Memory(analysis.argument_size_in_bytes, analysis.temp_size_in_bytes, outputs)


class Plan:
    """The shapes of a run's arrays, and its programs compiled for them.

    Args:
        policy: what is trained.
        value: its critic.
        recipe: every number of the method.
        params: shapes of the policy's parameters (``jax.ShapeDtypeStruct``).
        observation: shapes of what actors send.
        place: the device to compile for, as a sharding; None: JAX's default.
    """

    def __init__(
        self,
        policy: FlowPolicy,
        value: ValueFunction,
        recipe: Recipe,
        params: Params,
        observation: Observation,
        place: Sharding | None = None,
    ) -> None:
        self._policy, self._recipe, self._observation, self._place = policy, recipe, observation, place
        self._method: Method = method_of(policy, value, recipe)
        self.trainable, self.frozen = policy.split(params)
        self.state: TrainState = jax.eval_shape(partial(self._first_state, value), self.trainable)

    def _first_state(self, value: ValueFunction, trainable: Params) -> TrainState:
        recipe, key = self._recipe, jax.random.PRNGKey(0)
        critic_params = critic.init(self._policy, recipe.critic, self._observation.dim_proprio, key)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), trainable)
        params = params | noise_head.init(self._policy, recipe.noise, key)
        trained = states.trained_leaves(params, self._method.group)
        keep_reference = recipe.objective.reference_kl_coef > 0
        return states.create(params, critic_params, recipe.optimizer, 0, keep_reference, trained)

    def features(self, rows: int) -> PyTree:
        """Return the shapes of what the encoder makes of so many observations."""
        images = jax.ShapeDtypeStruct((rows, *self._observation.images), jnp.uint8)
        tokens = jax.ShapeDtypeStruct((rows, self._observation.num_tokens), jnp.int32)
        return jax.eval_shape(self._policy.encode, self.frozen, images, tokens)

    def minibatch(self, rows: int) -> Minibatch:
        """Return the shapes of a minibatch."""
        policy, recipe = self._policy, self._recipe

        def of(*shape: int, dtype: Any = jnp.float32) -> Any:
            return jax.ShapeDtypeStruct((rows, *shape), dtype)

        H, A = policy.chunk_size, policy.dim_action
        with_critic = self._method.value is not None
        points = Batch(
            features=self.features(rows),
            proprio=of(self._observation.dim_proprio),
            domain_id=of(dtype=jnp.int32),
            latents=of(num_latents(recipe.noise, policy.num_denoising_steps), H, A),
            denoise_step=of(dtype=jnp.int32),
            level=of(),
            step_mask=of(H, dtype=jnp.bool_),
            old_log_prob=of(H),
            advantages=of(),
            value_targets=of(),
            old_values=of(),
            critic_input=of(policy.critic_input_dims[recipe.critic.input]) if with_critic else None,
            share=of() if recipe.objective.loss_weighting == "episode" else None,
        )
        reference = None
        if recipe.objective.reference_kl_coef:
            reference = jax.eval_shape(partial(distribution, self._method), self.state.params, points)
        return Minibatch(points, FixedPolicies(of(H), reference), of())

    def step(self, rows: int) -> Memory:
        """Compile a minibatch step of so many rows."""
        minibatch = self.minibatch(rows)
        names = metric_names(self._method, self.state, minibatch, None)
        progress = jax.eval_shape(partial(progress_of, names=names), self.state)
        index, first = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.bool_)
        step = Programs(self._method).step
        return self._compiled(step, progress, minibatch, None, index, first)

    def encode(self, rows: int) -> Memory:
        """Compile the encoder for so many observations."""
        images = jax.ShapeDtypeStruct((rows, *self._observation.images), jnp.uint8)
        tokens = jax.ShapeDtypeStruct((rows, self._observation.num_tokens), jnp.int32)
        return self._compiled(jax.jit(self._policy.encode), self.frozen, images, tokens)

    def score(self, rows: int) -> Memory:
        """Compile the scoring of so many chunks."""
        points = self.minibatch(rows).points
        inputs = (
            Observed(points.features, points.proprio, points.domain_id),
            *(points.latents, points.denoise_step, points.level),
        )
        return self._compiled(jax.jit(self._method.policy.log_prob), self.state.params, *inputs)

    def _compiled(self, program: Callable[..., Any], *shapes: PyTree) -> Memory:
        placed = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._place), shapes
        )
        return memory_of(program.lower(*placed).compile())  # pyright: ignore[reportFunctionMemberAccess]
