"""One optimiser step on X-VLA's supervised loss, the state that it changes, and the loop around it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pirl_jax.optim import masters, movement
from pirl_jax.supervised.frames import Frames
from pirl_jax.trees import leaves, nest
from pirl_jax.typing import Array, Int, PRNGKeyArray, PyTree
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


Step = Callable[[SupervisedState, PyTree, Frames], tuple[SupervisedState, dict[str, Array]]]
"""``step(state, frozen, batch) -> (state, metrics)``; ``state`` is donated."""


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


def merge(trainable: PyTree, frozen: PyTree) -> PyTree:
    """Undo ``split``."""
    merged = dict(trainable)
    for name, branch in frozen.items():
        merged[name] = merge(merged[name], branch) if name in merged else branch
    return merged


def create(params: PyTree, optimizer: optax.GradientTransformation, seed: int) -> SupervisedState:
    """Return the state before the first step: copies of the trainable ``params``, in float32."""
    params = masters(params)
    return SupervisedState(params, optimizer.init(params), jax.random.key(seed), jnp.zeros((), jnp.int32))


def make_step(config: XVLAConfig, optimizer: optax.GradientTransformation) -> Step:
    """Return one jitted optimiser step on X-VLA's loss.

    Times are stratified over the batch and the noise is drawn as in LeRobot's ``XVLAModel.forward``. Images
    stay bytes until inside the step.
    """
    model = XVLA(config)

    def loss_fn(params: PyTree, frozen: PyTree, batch: Frames, key: PRNGKeyArray) -> tuple[Array, Any]:
        size = batch.action.shape[0]
        time_key, noise_key = jax.random.split(key)
        losses: Any = model.apply(
            {"params": merge(params, frozen)},
            normalize_images(jnp.asarray(batch.images)),
            batch.tokens,
            batch.proprio,
            batch.domain_id,
            batch.action,
            jax.random.normal(noise_key, (size, config.chunk_size, config.dim_action)),
            sample_times(time_key, size),
            method="supervised_loss",
        )
        return jnp.stack(list(losses.values())).sum(), losses

    def step(
        state: SupervisedState, frozen: PyTree, batch: Frames
    ) -> tuple[SupervisedState, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, losses), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, frozen, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {"train/loss": loss, "train/grad_norm": optax.tree.norm(grads)}
        metrics |= {f"train/{name}": value for name, value in losses.items()}
        params = optax.apply_updates(state.params, updates)
        moved = movement(state.params, params, part)
        metrics |= {f"train/{name}": value for name, value in moved.items()}
        return dataclasses.replace(state, params=params, opt_state=opt_state, step=state.step + 1), metrics

    return jax.jit(step, donate_argnums=0)


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
