"""One update: epochs × minibatches over the chunks of many episodes."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.likelihood import flow
from pirl_jax.optim import movement, sample
from pirl_jax.placement import ONE_DEVICE, Placement
from pirl_jax.recipe import OptimizerConfig
from pirl_jax.rows import cut, in_blocks, on_host
from pirl_jax.typing import Array, Bool, Float, Int, Metrics, Params, PRNGKeyArray
from pirl_jax.update import losses, metric_means
from pirl_jax.update.batch import Batch, pad_rows
from pirl_jax.update.demonstrations import Demonstrations, coef_at
from pirl_jax.update.method import Method
from pirl_jax.update.minibatch import Report, Sums, add_part, minibatch_step, no_sums, slots
from pirl_jax.update.objective import CriticRows, Draw, FixedPolicies, Minibatch, distribution
from pirl_jax.update.state import TrainState

LR_STEP = 1.5
"""Factor of one adaptation of the learning rate (``OptimizerConfig.adaptive_lr``)."""
LR_RANGE = 10.0
"""The adapted learning rate stays within this factor of ``OptimizerConfig.lr``."""


class Interrupted(Exception):  # noqa: N818 - nothing has failed
    """An update was given up; the state that it was given is gone once a step was taken."""


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


def make_update(programs: Programs) -> Callable[..., tuple[TrainState, Metrics]]:
    """Build ``update(state, batch, n_valid, demonstrations=None, interrupted=…) -> (state, metrics)``.

    ``state`` is donated to the first step. ``Interrupted`` is raised between two parts of a minibatch once
    ``interrupted(steps taken)`` is true.

    The rows stay in host memory. A minibatch reaches the device while the one before it is worked on, and
    nothing is waited for: whether the KL has passed its target is known on the device alone.

    Each epoch walks a fresh permutation of the ``n_valid`` first points in ⌈n_valid / minibatch_size⌉
    minibatches of (within one) equal size. What a minibatch does is ``minibatch_step``, which is compiled
    once, whatever ``n_valid`` is.

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
        programs: of the method. With ``method.supervised_loss`` the update needs ``demonstrations``.
    """
    method = programs.method
    placement = method.placement

    def update(
        state: TrainState,
        batch: Batch,
        n_valid: int,
        demonstrations: Demonstrations | None = None,
        interrupted: Callable[[int], bool] = lambda steps: False,
    ) -> tuple[TrainState, Metrics]:
        n, batch = int(n_valid), on_host(batch)
        capacity = method.capacity or len(batch.old_log_prob)
        size = min(method.optimizer.minibatch_size, capacity)
        demonstrations = demonstrations if method.supervised_loss is not None else None
        warming_up = int(state.updates) < method.critic.warmup_updates
        without_signal = demonstrations is None and not np.any(batch.advantages[:n])
        idle = warming_up or without_signal

        at_a_time, minibatches = method.microbatch_size or size, -(-n // size)
        fixed = programs.fixed_policies(state, batch, n, at_a_time)
        orders = np.asarray(programs.orders(state, n, capacity))
        before = programs.sample(state.params)
        any_row = _rows_of(batch, fixed, np.zeros(1, int), np.ones(1, np.float32))
        sums = jax.eval_shape(programs.no_sums, state.params, any_row)
        progress = progress_of(state, metric_names(method, sums), idle, placement)
        running = deque[Array]()
        for index in range(method.optimizer.num_epochs * minibatches):
            epoch, i = divmod(index, minibatches)
            start, stop = (j * n // minibatches for j in (i, i + 1))
            chosen, weight = _in_slots(orders[epoch, start:stop], slots(method, size))
            total = programs.total(batch.step_mask[chosen], weight)
            sums = programs.no_sums(progress.state.params, any_row)
            counts = np.any(batch.step_mask[chosen])  # else all their policies are forgotten
            for first in range(0, len(chosen) if counts and not idle else 0, at_a_time):
                if interrupted(index):
                    raise Interrupted
                part = slice(first, first + at_a_time)
                rows = placement.rows(_rows_of(batch, fixed, chosen[part], weight[part]))
                sums, done = programs.add(progress.state.params, sums, rows, total, progress.stopped)
                running.append(done)
                _wait_for_all_but_one(running)
            if interrupted(index):  # the step is given the state's memory
                raise Interrupted
            seen = placement.rows(_critic_rows(batch, chosen, weight))
            numbers = np.int32(index), np.bool_(i == 0), counts
            progress = programs.step(progress, sums, seen, demonstrations, *numbers)
            del sums  # the next ones take its room
        estimates = pad_rows((batch.old_values[:n], batch.value_targets[:n]), capacity)
        counted = np.int32(n), np.bool_(idle), np.bool_(idle and not warming_up)
        return programs.finish(progress, before, *estimates, *counted)

    return update


class Programs:
    """The compiled functions of an update."""

    def __init__(self, method: Method) -> None:
        self.method = method
        chain = method.policy.chain
        self.no_sums = jax.jit(lambda *shapes: method.placement.constrained(no_sums(method, *shapes)))
        self.total = partial(_compiled_total, aggregation=method.objective.aggregation)
        options: Any = method.placement.compiler_options
        self.add = jax.jit(partial(_add, method), donate_argnums=1, compiler_options=options)
        self.step = jax.jit(partial(_step, method), donate_argnums=0, compiler_options=options)
        self.finish = jax.jit(partial(_finish, method), donate_argnums=0)
        self.sample = jax.jit(sample)
        self.proximal = jax.jit(
            lambda params, points: flow.log_density(
                chain, distribution(method, params, points), points.latents
            )
        )
        self.reference = jax.jit(partial(distribution, method))

    def with_microbatch(self, size: int) -> Programs:
        """Return the same functions for an update that works on so many points at a time."""
        other = copy.copy(self)
        other.method = dataclasses.replace(self.method, microbatch_size=size)
        return other

    def orders(self, state: TrainState, n: int, capacity: int) -> Int[Array, "epochs N"]:
        """Return in which order each epoch visits the points, the first n of which are real."""
        return _compiled_orders(
            state.key, state.updates, n, num_epochs=self.method.optimizer.num_epochs, capacity=capacity
        )

    def fixed_policies(self, state: TrainState, batch: Batch, n: int, size: int) -> FixedPolicies:
        """Return what the fixed policies say of the first ``n`` points, in host memory."""
        proximal, reference, put = batch.old_log_prob, None, self.method.placement.rows
        if self.method.objective.decoupled:
            proximal = in_blocks(partial(self.proximal, state.params), batch, n, size, put)
        if self.method.objective.reference_kl_coef:
            reference = in_blocks(partial(self.reference, state.reference), batch, n, size, put)
        return FixedPolicies(proximal, reference)


def _wait_for_all_but_one(running: deque[Array]) -> None:
    """Else the host would lay out rows far ahead of the device."""
    if len(running) > 1:
        running.popleft().block_until_ready()


def _rows_of(batch: Batch, fixed: FixedPolicies, chosen: np.ndarray, weight: np.ndarray) -> Minibatch:
    rows: Any = (*cut((batch, fixed), chosen), weight)
    return Minibatch(*rows)


def _in_slots(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of ``count`` slots, and their weights: an empty one repeats a point at weight 0.

    Padding is no point: 0 · NaN would be NaN.
    """
    chosen, weight = np.full(count, points[0]), np.zeros(count, np.float32)
    chosen[: len(points)], weight[: len(points)] = points, 1
    return chosen, weight


def _critic_rows(batch: Batch, chosen: np.ndarray, weight: np.ndarray) -> CriticRows | None:
    if batch.critic_input is None:
        return None
    seen = (batch.critic_input, batch.proprio, batch.old_values, batch.value_targets, batch.share)
    rows: Any = (*cut(seen, chosen), weight)
    return CriticRows(*rows)


def metric_names(method: Method, sums: Sums) -> tuple[str, ...]:
    """Return what a policy's step is measured by."""
    more = () if method.supervised_loss is None else ("demonstrations_loss",)
    return ("policy_loss", "grad_norm", *sums.metrics, *more)


def progress_of(
    state: TrainState,
    names: Sequence[str],
    idle: Array | bool = False,
    placement: Placement = ONE_DEVICE,
) -> _Progress:
    """Return the progress before the first step."""
    numbers = {
        "stopped": jnp.bool_(idle),
        "policy_sums": metric_means.zeros(*names),
        "critic_sums": metric_means.zeros("value_loss", "critic_grad_norm"),
        "kl_sum": jnp.float32(0),
        "kl_n": jnp.int32(0),
        "policy_steps": jnp.int32(0),
        "skipped_steps": jnp.int32(0),
    }
    return _Progress(state=state, **placement.whole(numbers))


def _orders(
    key: PRNGKeyArray, updates: Int[Array, ""], n: Array, num_epochs: int, capacity: int
) -> Int[Array, "epochs N"]:
    key = jax.random.fold_in(key, updates)
    return jnp.stack([_permutation(jax.random.fold_in(key, i), capacity, n) for i in range(num_epochs)])


def _draw(
    method: Method, state: TrainState, demonstrations: Demonstrations | None, index: Int[Array, ""]
) -> Draw | None:
    """Return the demonstrations of the update's step of this number."""
    if demonstrations is None:
        return None
    key = jax.random.fold_in(state.key, state.updates)
    # Epochs fold their index into the key, value-only steps the number of epochs: this is the next one.
    key = jax.random.fold_in(key, method.optimizer.num_epochs + 1)
    coef = coef_at(method.demonstrations, state.updates)
    return Draw(demonstrations, jax.random.fold_in(key, index), coef)


def _add(
    method: Method,
    params: Params,
    sums: Sums,
    part: Minibatch,
    total: losses.Total,
    stopped: Bool[Array, ""],
) -> tuple[Sums, Float[Array, ""]]:
    """Add a part unless the policy rests; return with the sums, which are donated, what can be waited for."""

    def add(sums: Sums) -> Sums:
        return add_part(method, params, sums, part, total)

    sums = method.placement.constrained(jax.lax.cond(stopped, lambda sums: sums, add, sums))
    return sums, sums.loss + 0


def _step(
    method: Method,
    progress: _Progress,
    sums: Sums,
    rows: CriticRows | None,
    demonstrations: Demonstrations | None,
    index: Int[Array, ""],
    begins_epoch: Bool[Array, ""],
    counts: Bool[Array, ""],
) -> _Progress:
    """Take the step that a minibatch's parts add up to; of the policy only if any of its points counts."""
    forget = begins_epoch & ~progress.stopped
    progress = progress._replace(
        kl_sum=jnp.where(forget, 0.0, progress.kl_sum), kl_n=jnp.where(forget, 0, progress.kl_n)
    )
    draw = _draw(method, progress.state, demonstrations, index)
    learns = ~progress.stopped & counts
    state, report = minibatch_step(method, progress.state, sums, rows, draw, learns)
    return method.placement.constrained(_recorded(progress, state, report, learns))


def _finish(
    method: Method,
    progress: _Progress,
    before: Params,
    old_values: Float[Array, " N"],
    targets: Float[Array, " N"],
    n: Int[Array, ""],
    idle: Bool[Array, ""],
    without_signal: Bool[Array, ""],
) -> tuple[TrainState, Metrics]:
    """Return the state after the update, and its metrics."""
    state = progress.state
    kl = progress.kl_sum / jnp.maximum(progress.kl_n, 1)
    coef = {"demonstrations_coef": coef_at(method.demonstrations, state.updates)}
    counts = (jnp.arange(len(targets)) < n).astype(jnp.float32)
    metrics = {
        **movement(before, state.params, method.group),
        **metric_means.means(progress.policy_sums),
        **metric_means.means(progress.critic_sums),
        "explained_variance": losses.explained_variance(old_values, targets, counts),
        **(coef if method.supervised_loss is not None else {}),
        "approx_kl": kl,
        "lr": state.lr,
        "kl_stopped": progress.stopped & ~idle,
        "without_signal": without_signal,
        "policy_steps": progress.policy_steps,
        "skipped_steps": progress.skipped_steps,
    }
    lr = _adapted_lr(state.lr, kl, progress.kl_n > 0, method.optimizer)
    new_state = method.placement.constrained(state.replace(updates=state.updates + 1, lr=lr))
    return new_state, {f"train/{name}": value for name, value in metrics.items()}


def _recorded(progress: _Progress, state: TrainState, report: Report, learned: Bool[Array, ""]) -> _Progress:
    """Return the progress after a step, in which the policy has learned or rested."""
    policy, critic = report
    kl = jnp.where(policy.finite, policy.metrics["approx_kl"], 0.0)
    skipped = progress.skipped_steps + (learned & ~policy.finite)
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


# Of numbers and shapes alone, so that all runs in a process have one of each.
_compiled_orders = jax.jit(_orders, static_argnames=("num_epochs", "capacity"))
_compiled_total = jax.jit(losses.total, static_argnames="aggregation")
