"""One update as one jitted, donated function: epochs × minibatches over a padded batch of chunks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pirl_jax.likelihood import flow
from pirl_jax.optim import movement
from pirl_jax.recipe import OptimizerConfig
from pirl_jax.typing import Array, Bool, Float, Int, Metrics, PRNGKeyArray
from pirl_jax.update import losses, metric_means
from pirl_jax.update.batch import Batch, in_blocks
from pirl_jax.update.demonstrations import Demonstrations, coef_at
from pirl_jax.update.method import Method
from pirl_jax.update.minibatch import Report, minibatch_step
from pirl_jax.update.objective import Draw, FixedPolicies, Minibatch, distribution
from pirl_jax.update.state import TrainState

LR_STEP = 1.5
"""Factor of one adaptation of the learning rate (``OptimizerConfig.adaptive_lr``)."""
LR_RANGE = 10.0
"""The adapted learning rate stays within this factor of ``OptimizerConfig.lr``."""


class _Rows(NamedTuple):
    """What an update's minibatches are cut from."""

    batch: Batch
    n_valid: Int[Array, ""]
    fixed: FixedPolicies
    key: PRNGKeyArray
    """Of this update."""
    demonstrations: Demonstrations | None
    coef: Float[Array, ""]
    """Weight of their loss."""


class _Progress(NamedTuple):
    """Carried through the minibatches of an update."""

    state: TrainState
    stopped: Bool[Array, ""]
    """No policy steps (any more) in this update: the critic warms up, there are no advantages, or the KL has
    passed its target."""
    policy_sums: Metrics
    """Sums of the metrics over the policy minibatches evaluated so far, and their count ``n``."""
    critic_sums: Metrics
    kl_sum: Float[Array, ""]
    """Over the epoch's policy minibatches; the last epoch with any is what reaches the log and the lr."""
    kl_n: Int[Array, ""]
    policy_steps: Int[Array, ""]
    skipped_steps: Int[Array, ""]


def make_update(method: Method) -> Callable[..., tuple[TrainState, Metrics]]:
    """Build ``update(state, batch, n_valid, demonstrations=None) -> (state, metrics)``.

    Jitted, ``state`` donated.

    Each epoch walks a fresh permutation of the ``n_valid`` first points in ⌈n_valid / minibatch_size⌉
    minibatches of (within one) equal size; the trip count is data, so one compilation serves every
    ``n_valid`` ≤ B. What a minibatch does is ``minibatch_step``.

    * **KL stop**: a minibatch whose approximate KL exceeds ``target_kl`` is not applied and ends the
      *policy's* steps of this update. The critic goes on to the last epoch: its regression has nothing to do
      with the KL, and the next update's advantages want it fitted.
    * **Adaptive lr**: with the KL averaged over the last epoch that had policy minibatches, lr is divided by
      1.5 above ``target_kl``, multiplied by 1.5 below a third of it, within a factor 10 of the configured
      one. It acts on the next update.
    * **Without signal**: where all advantages are 0, as when no episode earned a reward, there are no policy
      steps either: Adam's momentum and the regularisers alone would move the policy.
    * **Critic warm-up**: the first ``CriticConfig.warmup_updates`` updates have no policy steps, and the
      metrics of those steps are 0.
    * **Non-finite** losses or gradients: that step is skipped, and counted in ``train/skipped_steps``.

    Args:
        method: functions and numbers. With ``method.supervised_loss`` the update needs ``demonstrations``.
    """
    return jax.jit(partial(_update, method), donate_argnums=0)


def _update(
    method: Method,
    state: TrainState,
    batch: Batch,
    n_valid: Array | int,
    demonstrations: Demonstrations | None = None,
) -> tuple[TrainState, Metrics]:
    optimizer = method.optimizer
    size = min(optimizer.minibatch_size, batch.old_log_prob.shape[0])
    with jax.named_scope("fixed_policies"):
        fixed = _fixed_policies(method, state, batch, method.microbatch or size)
    rows = _Rows(
        batch,
        jnp.asarray(n_valid, jnp.int32),
        fixed,
        jax.random.fold_in(state.key, state.updates),
        demonstrations if method.supervised_loss is not None else None,
        coef_at(method.demonstrations, state.updates),
    )
    warming_up = state.updates < method.critic.warmup_updates
    idle = warming_up | _without_signal(rows)
    progress = _start(method, state, rows, size, idle)
    progress = jax.lax.fori_loop(0, optimizer.num_epochs, partial(_epoch, method, rows, size), progress)
    kl = progress.kl_sum / jnp.maximum(progress.kl_n, 1)
    metrics = {
        **movement(state.params, progress.state.params, method.group),
        **metric_means.means(progress.policy_sums),
        **metric_means.means(progress.critic_sums),
        "explained_variance": _explained_variance(batch, rows.n_valid),
        **({} if rows.demonstrations is None else {"demonstrations_coef": rows.coef}),
        "approx_kl": kl,
        "lr": state.lr,
        "kl_stopped": progress.stopped & ~idle,
        "without_signal": idle & ~warming_up,
        "policy_steps": progress.policy_steps,
        "skipped_steps": progress.skipped_steps,
    }
    lr = _adapted_lr(state.lr, kl, progress.kl_n > 0, optimizer)
    new_state = progress.state.replace(updates=state.updates + 1, lr=lr)
    return new_state, {f"train/{name}": value for name, value in metrics.items()}


def _fixed_policies(method: Method, state: TrainState, batch: Batch, size: int) -> FixedPolicies:
    chain = method.policy.chain
    proximal, reference = batch.old_log_prob, None
    if method.objective.decoupled:
        proximal = in_blocks(
            lambda points: flow.log_density(
                chain, distribution(method, state.params, points), points.latents
            ),
            batch,
            size,
        )
    if method.objective.reference_kl_coef:
        reference = in_blocks(lambda points: distribution(method, state.reference, points), batch, size)
    return FixedPolicies(proximal, reference)


def _start(method: Method, state: TrainState, rows: _Rows, size: int, idle: Bool[Array, ""]) -> _Progress:
    def first() -> Report:
        chosen = jnp.zeros(_slots(method, size), jnp.int32)
        cut = _minibatch(rows, chosen, chosen == 0, rows.key)
        return minibatch_step(method, state, cut, ~idle)[1]

    return _Progress(
        state=state,
        stopped=idle,
        policy_sums=metric_means.zeros(*jax.eval_shape(first).policy.metrics),
        critic_sums=metric_means.zeros("value_loss", "critic_grad_norm"),
        kl_sum=jnp.float32(0),
        kl_n=jnp.int32(0),
        policy_steps=jnp.int32(0),
        skipped_steps=jnp.int32(0),
    )


def _slots(method: Method, size: int) -> int:
    """Return the rows of a minibatch of ``size`` points: microbatches are of one size."""
    microbatch = method.microbatch or size
    return -(-size // microbatch) * microbatch


def _epoch(method: Method, rows: _Rows, size: int, index: Array, progress: _Progress) -> _Progress:
    n_valid = rows.n_valid
    num_minibatches = (n_valid + size - 1) // size
    slots = _slots(method, size)
    order = _permutation(jax.random.fold_in(rows.key, index), rows.batch.old_log_prob.shape[0], n_valid)
    # dynamic_slice clamps its start: without this margin the last minibatch would repeat points.
    order = jnp.concatenate([order, jnp.zeros(slots, order.dtype)])

    def minibatch(i: Array, progress: _Progress) -> _Progress:
        start, stop = (j * n_valid // num_minibatches for j in (i, i + 1))
        counts = jnp.arange(slots) < stop - start
        # An empty slot repeats a valid point at weight 0, since 0 · NaN padding would be NaN.
        chosen = jnp.where(counts, jax.lax.dynamic_slice_in_dim(order, start, slots), order[0])
        # Epochs fold their index into the key, value-only steps the number of epochs: this is the next one.
        key = jax.random.fold_in(rows.key, method.optimizer.num_epochs + 1)
        cut = _minibatch(rows, chosen, counts, jax.random.fold_in(key, index * num_minibatches + i))
        state, report = minibatch_step(method, progress.state, cut, ~progress.stopped)
        return _recorded(progress, state, report)

    progress = progress._replace(
        kl_sum=jnp.where(progress.stopped, progress.kl_sum, 0.0),
        kl_n=jnp.where(progress.stopped, progress.kl_n, 0),
    )
    return jax.lax.fori_loop(jnp.int32(0), num_minibatches, minibatch, progress)


def _minibatch(
    rows: _Rows, chosen: Int[Array, " B"], counts: Bool[Array, " B"], key: PRNGKeyArray
) -> Minibatch:
    """Cut the chosen rows out."""
    points, fixed = jax.tree.map(lambda x: x[chosen], (rows.batch, rows.fixed))
    draw = None
    if rows.demonstrations is not None:
        draw = Draw(rows.demonstrations, key, rows.coef)
    return Minibatch(points, fixed, counts.astype(jnp.float32), draw)


def _recorded(progress: _Progress, state: TrainState, report: Report) -> _Progress:
    """Return the progress after a step."""
    policy, critic = report
    kl = jnp.where(policy.finite, policy.metrics["approx_kl"], 0.0)
    skipped = progress.skipped_steps + (~progress.stopped & ~policy.finite)
    critic_sums = progress.critic_sums
    if critic is not None:
        critic_sums = metric_means.add_if(critic.finite, critic_sums, critic.metrics)
        skipped += ~critic.finite
    return _Progress(
        state=state,
        stopped=progress.stopped | (policy.finite & ~policy.applied),
        policy_sums=metric_means.add_if(policy.finite, progress.policy_sums, policy.metrics),
        critic_sums=critic_sums,
        kl_sum=progress.kl_sum + kl.astype(jnp.float32),
        kl_n=progress.kl_n + policy.finite,
        policy_steps=progress.policy_steps + policy.applied,
        skipped_steps=skipped,
    )


def _without_signal(rows: _Rows) -> Bool[Array, ""]:
    """Tell whether no point has an advantage, and there is nothing else to imitate either."""
    if rows.demonstrations is not None:
        return jnp.bool_(False)
    valid = jnp.arange(rows.batch.advantages.shape[0]) < rows.n_valid
    return ~jnp.any(valid & (rows.batch.advantages != 0))


def _explained_variance(batch: Batch, n_valid: Int[Array, ""]) -> Float[Array, ""]:
    valid = jnp.arange(batch.old_log_prob.shape[0]) < n_valid
    values, targets = (jnp.where(valid, x, 0.0) for x in (batch.old_values, batch.value_targets))
    return losses.explained_variance(values, targets, valid.astype(jnp.float32))


def _adapted_lr(
    lr: Float[Array, ""], kl: Float[Array, ""], measured: Bool[Array, ""], optimizer: OptimizerConfig
) -> Float[Array, ""]:
    target = optimizer.target_kl
    if not optimizer.adaptive_lr or target is None:
        return lr
    factor = jnp.where(kl > target, 1 / LR_STEP, jnp.where(kl < target / 3, LR_STEP, 1.0))
    adapted = jnp.clip(lr * factor, optimizer.lr / LR_RANGE, optimizer.lr * LR_RANGE)
    return jnp.where(measured, adapted, lr).astype(lr.dtype)


def _permutation(key: PRNGKeyArray, capacity: int, n_valid: Int[Array, ""]) -> Int[Array, " B"]:
    """Random order of the first ``n_valid`` indices, the others behind them."""
    draws = jnp.where(
        jnp.arange(capacity) < n_valid, jax.random.uniform(key, (capacity,), jnp.float32), jnp.inf
    )
    return jnp.argsort(draws).astype(jnp.int32)
