"""One optimiser step on X-VLA's supervised loss, the state that it changes, and the loop around it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pirl_jax.optim import masters, movement, sample
from pirl_jax.supervised.frames import Frames
from pirl_jax.trees import leaves, merge, nest
from pirl_jax.typing import Array, Float, Int, PRNGKeyArray, PyTree
from pirl_jax.xvla.actions import action_space
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.images import normalize_images
from pirl_jax.xvla.model import XVLA, sample_times
from pirl_jax.xvla.trainable import part


@flax.struct.dataclass
class SupervisedState:
    """What a step changes, and what a checkpoint holds."""

    params: PyTree
    """Trainable parameters only."""
    opt_state: optax.OptState
    key: PRNGKeyArray
    """Never changes: each step folds ``step`` into it, so a resumed run draws what it would have."""
    step: Int[Array, ""]


def split(params: PyTree, is_frozen: Callable[[str], bool]) -> tuple[PyTree, PyTree]:
    """Return the trainable and the frozen parameters, as nested dicts without empty branches.

    Args:
        params: Nested dict of arrays.
        is_frozen: Decides by a parameter's dotted name.
    """
    parts: tuple[list, list] = ([], [])
    for path, leaf in leaves(params):
        parts[is_frozen(".".join(path))].append((path, leaf))
    return nest(parts[0]), nest(parts[1])


def create(params: PyTree, optimizer: optax.GradientTransformation, seed: int) -> SupervisedState:
    """Return the state before the first step: copies of the trainable ``params``, in float32."""
    params = masters(params)
    return SupervisedState(params, optimizer.init(params), jax.random.PRNGKey(seed), jnp.zeros((), jnp.int32))


class Sums(NamedTuple):
    """Of a batch, what its parts have added up to so far."""

    losses: dict[str, Array]
    grads: PyTree


class Step:
    """One optimiser step on X-VLA's loss.

    Times are stratified over the batch and the noise is drawn as in LeRobot's ``XVLAModel.forward``. Images
    stay bytes until inside the network.

    Args:
        config: of the network.
        optimizer: as built for the parameters.
        parts: equal parts that a batch is worked off in, one after the other. It bounds the memory and
            changes nothing else: noise and times are the batch's, and its losses are means over it.

    Attributes:
        add: ``(params, sums, frozen, frames, noise, times) -> sums``, compiled; ``sums`` is donated.
        apply: ``(state, sums) -> (state, metrics)``, compiled; ``state`` is donated.
    """

    def __init__(self, config: XVLAConfig, optimizer: optax.GradientTransformation, parts: int = 1) -> None:
        self._config, self._optimizer, self._parts = config, optimizer, parts
        self._draw = jax.jit(self.drawn, static_argnums=1)
        self._no_sums = jax.jit(self.no_sums)
        self.add = jax.jit(self._add, donate_argnums=1)
        self.apply = jax.jit(self._apply, donate_argnums=0)

    def __call__(
        self, state: SupervisedState, frozen: PyTree, batch: Frames
    ) -> tuple[SupervisedState, dict[str, Array]]:
        """Return the state after the step, and its metrics; ``state`` is donated."""
        noise, times = self._draw(state, len(batch.action))
        sums = self._no_sums(state.params)
        size = len(batch.action) // self._parts
        for first in range(0, len(batch.action), size):
            rows = slice(first, first + size)
            frames = Frames(*(array[rows] for array in batch))
            sums = self.add(state.params, sums, frozen, frames, noise[rows], times[rows])
        return self.apply(state, sums)

    def drawn(self, state: SupervisedState, size: int) -> tuple[Float[Array, "B H A"], Float[Array, " B"]]:
        """Return noise and times of a batch of this size."""
        time_key, noise_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        noise = jax.random.normal(noise_key, (size, self._config.chunk_size, self._config.dim_action))
        return noise, sample_times(time_key, size)

    def no_sums(self, params: PyTree) -> Sums:
        """Return the sums before the first part."""
        terms = action_space(self._config).loss_terms
        return Sums({term.name: jnp.float32(0) for term in terms}, jax.tree.map(jnp.zeros_like, params))

    def _add(
        self, params: PyTree, sums: Sums, frozen: PyTree, frames: Frames, noise: Array, times: Array
    ) -> Sums:
        def share(params: PyTree) -> tuple[Array, dict[str, Array]]:
            losses: Any = XVLA(self._config).apply(
                {"params": merge(params, frozen)},
                normalize_images(jnp.asarray(frames.images)),
                *(frames.tokens, frames.proprio, frames.domain_id, frames.action, noise, times),
                method="supervised_loss",
            )
            losses = {name: loss / self._parts for name, loss in losses.items()}
            return jnp.stack(list(losses.values())).sum(), losses

        (_, losses), grads = jax.value_and_grad(share, has_aux=True)(params)
        return jax.tree.map(jnp.add, sums, Sums(losses, grads))

    def _apply(self, state: SupervisedState, sums: Sums) -> tuple[SupervisedState, dict[str, Array]]:
        losses, grads = sums
        updates, opt_state = self._optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "train/loss": jnp.stack(list(losses.values())).sum(),
            "train/grad_norm": optax.tree.norm(grads),
        }
        params = optax.apply_updates(state.params, updates)
        metrics |= {f"train/{name}": value for name, value in losses.items()}
        moved = movement(sample(state.params), params, part)
        metrics |= {f"train/{name}": value for name, value in moved.items()}
        return dataclasses.replace(state, params=params, opt_state=opt_state, step=state.step + 1), metrics


def fit(
    state: SupervisedState,
    frozen: PyTree,
    step: Step,
    batches: Iterator[Frames],
    total_steps: int,
    stop: threading.Event | None = None,
) -> Iterator[tuple[int, SupervisedState, dict[str, Array]]]:
    """Yield ``(steps done, state, metrics)`` after each step, until ``total_steps`` or ``stop``.

    The yielded state is donated to the next step: copy what is to outlive it.

    Raises:
        FloatingPointError: The loss is not finite.
    """
    while (done := int(state.step)) < total_steps and not (stop and stop.is_set()):
        state, metrics = step(state, frozen, next(batches))
        loss = float(metrics["train/loss"])
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss of step {done + 1} is {loss}. Lower policy.optimizer_lr, or look for non-finite "
                "values in the dataset."
            )
        yield done + 1, state, metrics
