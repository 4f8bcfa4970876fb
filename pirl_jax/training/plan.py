"""What a run's programs take of a device, known before anything runs: by compiling them for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from pirl_jax.likelihood.modes import num_latents
from pirl_jax.likelihood.stochastic import Observed
from pirl_jax.training.budget import readable
from pirl_jax.training.parts import Parts
from pirl_jax.typing import Params, PyTree
from pirl_jax.update.batch import Batch
from pirl_jax.update.demonstrations import Demonstrations
from pirl_jax.update.losses import Total
from pirl_jax.update.minibatch import Sums, no_sums
from pirl_jax.update.objective import CriticRows, FixedPolicies, Minibatch, distribution
from pirl_jax.update.state import TrainState
from pirl_jax.update.update import metric_names, progress_of


@dataclass(frozen=True)
class Observation:
    """Shapes of one observation."""

    images: tuple[int, ...]
    """[V, C, h, w]."""
    num_tokens: int
    dim_proprio: int
    dim_action: int
    """Of a demonstration: the robot's channels."""


@dataclass(frozen=True)
class Memory:
    """What a program takes of its device."""

    arguments: int
    """Bytes."""
    temporaries: int
    outputs: int
    """What is not written into arguments that are donated."""
    flops: float
    """Floating-point operations, the bodies of loops counted once."""

    @property
    def working(self) -> int:
        """Bytes beside the arguments, which lie there anyway."""
        return self.temporaries + self.outputs


def memory_of(compiled: Any) -> Memory:
    """Read the analyses of what ``jax.jit(…).lower(…).compile()`` returns."""
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis() or {}
    return Memory(
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.output_size_in_bytes - memory.alias_size_in_bytes,
        costs.get("flops", 0.0),
    )


class Plan:
    """The shapes of a run's arrays, and its programs compiled for them.

    A run that uses the same ``parts`` on arrays of these shapes finds its programs compiled.

    Args:
        parts: of the run.
        frozen: shapes of the encoder's parameters (``jax.ShapeDtypeStruct``).
        state: shapes of what an update changes.
        observation: shapes of what actors send.
        place: the device to compile for, as a sharding; None: JAX's default, or what ``parts`` are placed on.
    """

    def __init__(
        self,
        parts: Parts,
        frozen: Params,
        state: TrainState,
        observation: Observation,
        place: Sharding | None = None,
    ) -> None:
        self.parts, self.frozen, self.state = parts, frozen, state
        self._observation, self._place = observation, place

    def with_microbatch(self, size: int) -> Plan:
        """Return the plan of the same run with so many points of a minibatch in work at a time.

        What does not hang on that number is not compiled a second time.
        """
        return Plan(self.parts.with_microbatch(size), self.frozen, self.state, self._observation, self._place)

    def images(self, rows: int) -> PyTree:
        """Return the shape of so many observations' images, as they are sent."""
        return self._rows(jax.ShapeDtypeStruct((rows, *self._observation.images), jnp.uint8))

    @property
    def known_as(self) -> str:
        """By what the time that its programs take to compile hangs together with, for people."""
        devices = self.parts.placement.devices
        return f"{readable(size_of(self.state))} of state on {devices} {jax.devices()[0].device_kind}"

    @property
    def pushed(self) -> int:
        """Bytes of a policy as it is pushed."""
        numbers = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
        return numbers * jnp.dtype(self.parts.recipe.push.dtype).itemsize

    def features(self, rows: int) -> PyTree:
        """Return the shapes of what the encoder makes of so many observations."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), self._features_of_each
        )

    @cached_property
    def _features_of_each(self) -> PyTree:
        # Tracing an encoder takes longer than all else that is asked of it here.
        rows = self.parts.placement.devices
        return jax.eval_shape(self.parts.score.encode, self.frozen, self.images(rows), self._tokens(rows))

    def part(self, rows: int) -> Minibatch:
        """Return the shapes of so many rows of a minibatch."""
        policy, recipe, method = self.parts.policy, self.parts.recipe, self.parts.method

        def of(*shape: int, dtype: Any = jnp.float32) -> Any:
            return jax.ShapeDtypeStruct((rows, *shape), dtype)

        H, A = policy.chunk_size, policy.dim_action
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
            critic_input=of(policy.critic_input_dims[recipe.critic.input]) if method.value else None,
            share=of() if recipe.objective.loss_weighting == "episode" else None,
            policy_share=of() if recipe.objective.loss_weighting == "episode" else None,
        )
        reference = None
        if recipe.objective.reference_kl_coef:
            reference = jax.eval_shape(partial(distribution, method), self.state.params, points)
        return self._rows(Minibatch(points, FixedPolicies(of(H), reference), of()))

    def add(self, rows: int) -> Memory:
        """Compile the gradient of a part of a minibatch."""
        number: Any = jax.ShapeDtypeStruct((), jnp.float32)
        flag = jax.ShapeDtypeStruct((), jnp.bool_)
        part, sums = self.part(rows), self._sums()
        return self._compiled(
            self.parts.programs.add, self.state.params, sums, part, Total(number, number), flag
        )

    def step(self, rows: int) -> Memory:
        """Compile the step that follows the gradient of a minibatch of so many rows."""
        sums, batch, method = self._sums(), self.part(rows), self.parts.method
        names = metric_names(method, sums)
        progress = self._split(jax.eval_shape(partial(progress_of, names=names), self.state))
        points = batch.points
        seen = (points.proprio, points.old_values, points.value_targets, points.share, batch.weight)
        theirs = None if points.critic_input is None else CriticRows(points.critic_input, *seen)
        index, flag = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.bool_)
        return self._compiled(
            self.parts.programs.step, progress, sums, theirs, self._demonstrations(), index, flag, flag
        )

    def _demonstrations(self) -> Demonstrations | None:
        config, policy = self.parts.recipe.demonstrations, self.parts.policy
        if self.parts.method.supervised_loss is None:
            return None
        rows = config.max_samples
        proprio = jax.ShapeDtypeStruct((rows, self._observation.dim_proprio), jnp.float32)
        action = jax.ShapeDtypeStruct((rows, policy.chunk_size, self._observation.dim_action), jnp.float32)
        domain_id: Any = jax.ShapeDtypeStruct((rows,), jnp.int32)
        arrays: Any = (self.features(rows), proprio, domain_id, action)
        return self.parts.placement.whole_shapes(Demonstrations(*arrays))

    def _sums(self) -> Sums:
        one: Any = self.part(self.parts.placement.devices)
        return self._split(jax.eval_shape(partial(no_sums, self.parts.method), self.state.params, one))

    def _rows(self, shapes: PyTree) -> PyTree:
        return self.parts.placement.row_shapes(shapes)

    def _split(self, shapes: PyTree) -> PyTree:
        return self.parts.placement.split_shapes(shapes)

    def encode(self, rows: int) -> Memory:
        """Compile the encoder for so many observations."""
        return self._compiled(self.parts.score.encode, self.frozen, self.images(rows), self._tokens(rows))

    def score(self, rows: int) -> Memory:
        """Compile the scoring of so many chunks under parameters that lie on the device."""
        points, push = self.part(rows).points, self.parts.recipe.push
        observed = Observed(points.features, points.proprio, points.domain_id)
        level = jax.ShapeDtypeStruct((), jnp.float32)
        chunks = points.latents, points.denoise_step, level
        program = self.parts.score.log_prob
        return self._compiled(program, self.state.params, observed, *chunks, dtype=push.dtype)

    def _tokens(self, rows: int) -> PyTree:
        return self._rows(jax.ShapeDtypeStruct((rows, self._observation.num_tokens), jnp.int32))

    def _compiled(self, program: Callable[..., Any], *shapes: PyTree, **static: Any) -> Memory:
        placed = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or self._place),
            shapes,
        )
        lowered = program.lower(*placed, **static)  # pyright: ignore[reportFunctionMemberAccess]
        return memory_of(lowered.compile())


def size_of(tree: PyTree) -> int:
    """Return the bytes of a pytree of arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
