"""The critic's half of a minibatch step, and the value-only steps that follow an update."""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from pirl_jax.optim import clip_by_global_norm, descend, select
from pirl_jax.typing import Array, Bool, Float, Metrics, PyTree
from pirl_jax.update import losses, metric_means
from pirl_jax.update.method import Method
from pirl_jax.update.state import TrainState, adamw


class CriticBatch(flax.struct.PyTreeNode):
    """What the value-only steps need of B observations, the valid ones first."""

    critic_input: Float[Array, "B D"]
    proprio: Float[Array, "B P"]
    value_targets: Float[Array, " B"]
    share: Float[Array, " B"] | None = None
    """As in ``Batch``."""


def make_critic_update(
    method: Method,
) -> Callable[[TrainState, CriticBatch, Array | int], tuple[TrainState, Metrics]]:
    """Build ``critic_update(state, batch, n_valid) -> (state, metrics)``: value-only steps after an update.

    ``CriticConfig.extra_steps`` minibatches are drawn with replacement. The loss is the plain Huber: value
    clipping is relative to the values at collection, which for older buffers have lost their meaning. Jitted,
    ``state`` donated.
    """
    config, optimizer, value_of = method.critic, method.optimizer, method.value
    assert value_of is not None

    def objective(params: PyTree, points: CriticBatch) -> Array:
        error = value_of(params, points.critic_input, points.proprio) - points.value_targets
        errors = losses.huber(error, config.huber_delta)
        return config.value_coef * jnp.mean(losses.by_share(errors, points.share))

    def update(state: TrainState, batch: CriticBatch, n_valid: Array | int) -> tuple[TrainState, Metrics]:
        size = min(optimizer.minibatch_size, batch.value_targets.shape[0])
        # The update has counted itself; its keys are folds of the epoch's index, so ours start after them.
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.updates - 1), optimizer.num_epochs)

        def step(i: Array, carry):
            state, sums, skipped = carry
            rows = jax.random.randint(jax.random.fold_in(key, i), (size,), 0, n_valid)
            points = jax.tree.map(lambda x: x[rows], batch)
            loss, grads = jax.value_and_grad(objective)(state.critic_params, points)
            state, _, finite = apply_critic_step(method, state, loss, grads)
            return state, metric_means.add_if(finite, sums, {"extra_value_loss": loss}), skipped + ~finite

        num_steps = jnp.where(jnp.asarray(n_valid) > 0, config.extra_steps, 0)
        carry = (state, metric_means.zeros("extra_value_loss"), jnp.int32(0))
        state, sums, skipped = jax.lax.fori_loop(jnp.int32(0), num_steps.astype(jnp.int32), step, carry)
        metrics = {**metric_means.means(sums), "extra_skipped_steps": skipped}
        return method.placement.constrained(state), {
            f"train/{name}": value for name, value in metrics.items()
        }

    return jax.jit(update, donate_argnums=0)


def apply_critic_step(
    method: Method, state: TrainState, loss: Float[Array, ""], grads: PyTree
) -> tuple[TrainState, Float[Array, ""], Bool[Array, ""]]:
    """Descend along the critic's gradient, unless loss or gradient is not finite.

    Returns:
        The state, the gradient's norm before clipping, and whether the step was taken.
    """
    grads, grad_norm = clip_by_global_norm(grads, method.optimizer.grad_clip_norm)
    tx = adamw(method.optimizer)
    direction, opt_state = tx.update(grads, state.critic_opt_state, state.critic_params)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    params = descend(state.critic_params, direction, method.critic.lr)
    state = state.replace(
        critic_params=select(finite, params, state.critic_params),
        critic_opt_state=select(finite, opt_state, state.critic_opt_state),
    )
    return state, grad_norm, finite
