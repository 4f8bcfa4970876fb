"""One update: epochs × minibatches over the chunks of many episodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.likelihood import flow
from pirl_jax.optim import movement, sample
from pirl_jax.recipe import OptimizerConfig
from pirl_jax.rows import cut, in_blocks, on_host
from pirl_jax.typing import Array, Bool, Float, Int, Metrics, Params, PRNGKeyArray
from pirl_jax.update import losses, metric_means
from pirl_jax.update.batch import Batch, pad_rows
from pirl_jax.update.demonstrations import Demonstrations, coef_at
from pirl_jax.update.method import Method
from pirl_jax.update.minibatch import Report, minibatch_step, slots
from pirl_jax.update.objective import Draw, FixedPolicies, Minibatch, distribution
from pirl_jax.update.state import TrainState

LR_STEP = 1.5
"""Factor of one adaptation of the learning rate (``OptimizerConfig.adaptive_lr``)."""
LR_RANGE = 10.0
"""The adapted learning rate stays within this factor of ``OptimizerConfig.lr``."""


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
    """Build ``update(state, batch, n_valid, demonstrations=None) -> (state, metrics)``; ``state`` is donated.

    The rows stay in host memory. A minibatch reaches the device while the one before it is worked on, and
    nothing is waited for: whether the KL has passed its target is known on the device alone.

    Each epoch walks a fresh permutation of the ``n_valid`` first points in ⌈n_valid / minibatch_size⌉
    minibatches of (within one) equal size. What a minibatch does is ``minibatch_step``, which is compiled
    once for every ``n_valid``.

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

    def update(
        state: TrainState, batch: Batch, n_valid: int, demonstrations: Demonstrations | None = None
    ) -> tuple[TrainState, Metrics]:
        n, batch = int(n_valid), on_host(batch)
        capacity = method.capacity or len(batch.old_log_prob)
        size = min(method.optimizer.minibatch_size, capacity)
        demonstrations = demonstrations if method.supervised_loss is not None else None
        warming_up = int(state.updates) < method.critic.warmup_updates
        without_signal = demonstrations is None and not np.any(batch.advantages[:n])
        idle = warming_up or without_signal

        fixed = programs.fixed_policies(state, batch, n, method.microbatch_size or size)
        orders = np.asarray(programs.orders(state, n, capacity))
        before = programs.sample(state.params)
        num_slots = slots(method, size)
        if programs.metrics is None:
            points, theirs = cut((batch, fixed), np.zeros(num_slots, int))
            any_rows = Minibatch(points, theirs, jnp.zeros(num_slots))
            draw = _draw(method, state, demonstrations, jnp.int32(0))
            programs.metrics = metric_names(method, state, any_rows, draw)
        progress = progress_of(state, programs.metrics, idle)
        running = deque[Array]()
        minibatches = -(-n // size)
        for index in range(method.optimizer.num_epochs * minibatches):
            epoch, i = divmod(index, minibatches)
            start, stop = (j * n // minibatches for j in (i, i + 1))
            # An empty slot repeats a valid point at weight 0, since 0 · NaN padding would be NaN.
            chosen = np.full(num_slots, orders[epoch, 0])
            chosen[: stop - start] = orders[epoch, start:stop]
            counts: Any = (np.arange(len(chosen)) < stop - start).astype(np.float32)
            points, theirs = cut((batch, fixed), chosen)
            rows = jax.device_put(Minibatch(points, theirs, counts))
            progress, done = programs.step(progress, rows, demonstrations, np.int32(index), np.bool_(i == 0))
            running.append(done)
            if len(running) > 1:  # else the host would lay out minibatches far ahead of the device
                running.popleft().block_until_ready()
        estimates = pad_rows((batch.old_values[:n], batch.value_targets[:n]), capacity)
        reasons = np.bool_(idle), np.bool_(idle and not warming_up)
        return programs.finish(progress, before, *estimates, np.int32(n), *reasons)

    return update


class Programs:
    """The compiled functions of an update."""

    def __init__(self, method: Method) -> None:
        self.method = method
        chain = method.policy.chain
        self.step = jax.jit(partial(_step, method), donate_argnums=0)
        self.finish = jax.jit(partial(_finish, method), donate_argnums=0)
        self.orders = jax.jit(partial(_orders, method.optimizer.num_epochs), static_argnums=2)
        self.sample = jax.jit(sample)
        self.proximal = jax.jit(
            lambda params, points: flow.log_density(
                chain, distribution(method, params, points), points.latents
            )
        )
        self.reference = jax.jit(partial(distribution, method))
        self.metrics: tuple[str, ...] | None = None
        """``metric_names``, once they are known: to find out takes a trace of the step."""

    def fixed_policies(self, state: TrainState, batch: Batch, n: int, size: int) -> FixedPolicies:
        """Return what the fixed policies say of the first ``n`` points, in host memory."""
        proximal, reference = batch.old_log_prob, None
        if self.method.objective.decoupled:
            proximal = in_blocks(partial(self.proximal, state.params), batch, n, size)
        if self.method.objective.reference_kl_coef:
            reference = in_blocks(partial(self.reference, state.reference), batch, n, size)
        return FixedPolicies(proximal, reference)


def metric_names(method: Method, state: TrainState, rows: Minibatch, draw: Draw | None) -> tuple[str, ...]:
    """Return what a policy's step is measured by; of the arguments only the shapes matter."""
    step = partial(minibatch_step, method)
    report = jax.eval_shape(step, state, rows._replace(draw=draw), jnp.bool_(True))[1]
    return tuple(report.policy.metrics)


def progress_of(state: TrainState, names: Sequence[str], idle: Array | bool = False) -> _Progress:
    """Return the progress before the first step."""
    return _Progress(
        state=state,
        stopped=jnp.bool_(idle),
        policy_sums=metric_means.zeros(*names),
        critic_sums=metric_means.zeros("value_loss", "critic_grad_norm"),
        kl_sum=jnp.float32(0),
        kl_n=jnp.int32(0),
        policy_steps=jnp.int32(0),
        skipped_steps=jnp.int32(0),
    )


def _orders(num_epochs: int, state: TrainState, n: Array, capacity: int) -> Int[Array, "epochs N"]:
    key = jax.random.fold_in(state.key, state.updates)
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


def _step(
    method: Method,
    progress: _Progress,
    rows: Minibatch,
    demonstrations: Demonstrations | None,
    index: Int[Array, ""],
    begins_epoch: Bool[Array, ""],
) -> tuple[_Progress, Int[Array, ""]]:
    """Take a step, and return with the progress what can be waited for: the progress itself is donated."""
    forget = begins_epoch & ~progress.stopped
    progress = progress._replace(
        kl_sum=jnp.where(forget, 0.0, progress.kl_sum), kl_n=jnp.where(forget, 0, progress.kl_n)
    )
    rows = rows._replace(draw=_draw(method, progress.state, demonstrations, index))
    state, report = minibatch_step(method, progress.state, rows, ~progress.stopped)
    return _recorded(progress, state, report), index + 1


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
    new_state = state.replace(updates=state.updates + 1, lr=lr)
    return new_state, {f"train/{name}": value for name, value in metrics.items()}


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
