"""One PPO update as one jitted, donated function: epochs × minibatches over a padded batch of chunks.

The policy and the critic enter as callables on their trainable parameters, so that nothing here knows X-VLA:

    predict(params, features, x_t[B H A], t[B], proprio[B P], domain_id[B]) -> clean action â [B H A]
    spread(params, features, proprio[B P], t[B]) -> log factor on the noise of each channel [B A]
    critic(critic_params, features, proprio[B P]) -> values [B]

``features`` is whatever pytree of arrays ``[B, ...]`` the frozen encoder made of the observations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax import flow, loss
from pirl_jax.optim import clip_by_global_norm, descend, warmup
from pirl_jax.recipe import Recipe
from pirl_jax.state import TrainState, optimizer
from pirl_jax.typing import Array, Bool, Float, Int

PyTree = Any
Predict = Callable[[PyTree, PyTree, Array, Array, Array, Array], Array]
Spread = Callable[[PyTree, PyTree, Array, Array], Array]
Critic = Callable[[PyTree, PyTree, Array], Array]
Metrics = dict[str, Array]

LR_STEP = 1.5
"""Factor of one adaptation of the learning rate (``Recipe.adaptive_lr``)."""
LR_RANGE = 10.0
"""The adapted learning rate stays within this factor of ``Recipe.lr``."""


class Batch(flax.struct.PyTreeNode):
    """N decision points, the valid ones first. What the rest holds is never looked at."""

    features: PyTree
    proprio: Float[Array, "N P"]
    domain_id: Int[Array, " N"]
    latents: Float[Array, "N L H A"]
    denoise_step: Int[Array, " N"]
    level: Float[Array, " N"]
    """Noise level of the policy that acted. Not a parameter: ratios have it in both of their densities."""
    step_mask: Bool[Array, "N H"]
    """Chunk steps that were executed: they alone enter the likelihood."""
    old_log_prob: Float[Array, "N H"]
    """Of each chunk step under the policy that acted; finite everywhere."""
    advantages: Float[Array, " N"]
    value_targets: Float[Array, " N"]
    old_values: Float[Array, " N"]


class CriticBatch(flax.struct.PyTreeNode):
    """What the value-only steps need of N observations, the valid ones first."""

    features: PyTree
    proprio: Float[Array, "N P"]
    value_targets: Float[Array, " N"]


def pad_rows(tree: PyTree, capacity: int) -> PyTree:
    """Zero-pad every array of a host pytree to ``capacity`` rows.

    Raises:
        ValueError: if an array has more rows than that.
    """

    def pad(x: np.ndarray) -> np.ndarray:
        if len(x) > capacity:
            raise ValueError(f"{len(x)} rows do not fit a capacity of {capacity}; raise the capacity.")
        return np.pad(x, [(0, capacity - len(x))] + [(0, 0)] * (x.ndim - 1))

    return jax.tree.map(pad, tree)


def _in_blocks(function: Callable[[PyTree], PyTree], rows: PyTree, size: int) -> PyTree:
    """``function(rows)`` computed ``size`` rows at a time: no more memory than a minibatch takes."""
    n = jax.tree.leaves(rows)[0].shape[0]
    blocks = -(-n // size)
    order = jnp.arange(blocks * size).reshape(blocks, size) % n
    out = jax.lax.map(lambda block: function(jax.tree.map(lambda x: x[block], rows)), order)
    return jax.tree.map(lambda x: x.reshape(blocks * size, *x.shape[2:])[:n], out)


class _Anchors(NamedTuple):
    """What the policy is held to, of each point; fixed during an update."""

    proximal: Array
    """Log-density of each chunk step under the policy that ratios are taken to."""
    reference: flow.Gaussians | None
    """Distributions of the noised steps under the policy that the run began with."""


class _Progress(NamedTuple):
    """Carried through the minibatches of an update."""

    state: TrainState
    stopped: Array
    """Set once the KL has passed its target: no policy steps any more in this update."""
    policy_sums: Metrics
    """Sums of the metrics over the policy minibatches evaluated so far, and their count ``n``."""
    critic_sums: Metrics
    kl_sum: Array
    """Over the epoch's policy minibatches; the last epoch with any is what reaches the log and the lr."""
    kl_n: Array
    policy_steps: Array
    skipped_steps: Array


def make_update(
    predict: Predict,
    critic: Critic,
    recipe: Recipe,
    K: int,
    scale: np.ndarray,
    spread: Spread | None = None,
) -> Callable[[TrainState, Batch, Array | int], tuple[TrainState, Metrics]]:
    """Build ``update(state, batch, n_valid) -> (state, metrics)``: jitted, ``state`` donated.

    Each epoch walks a fresh permutation of the ``n_valid`` first points in ⌈n_valid / minibatch_size⌉
    minibatches of (within one) equal size; the trip count is data, so one compilation serves every
    ``n_valid`` ≤ N. Policy and critic share no parameters: each has its own gradient, clipping and AdamW.

    * **KL stop**: a minibatch whose approximate KL exceeds ``target_kl`` is not applied and ends the
      *policy's* steps of this update. The critic goes on to the last epoch: its regression has nothing to do
      with the KL, and the next update's advantages want it fitted.
    * **Adaptive lr**: with the KL averaged over the last epoch that had policy minibatches, lr is divided by
      1.5 above ``target_kl``, multiplied by 1.5 below a third of it, within a factor 10 of ``Recipe.lr``. It
      acts on the next update.
    * **Non-finite** losses or gradients: that step is skipped, and counted in ``train/skipped_steps``.

    Args:
        predict: flow head on the trainable parameters, in float32.
        critic: value function on detached features.
        recipe: every number of the method.
        K: denoising steps of the policy.
        scale: factor on the noise level for each action channel (``noise.channel_scale``).
        spread: noise head on the trainable parameters (``noise_head.spread_fn``), for a mode that learns.
    """
    tx = optimizer(recipe)
    noise = recipe.noise

    def gaussians(params: PyTree, points: Batch) -> flow.Gaussians:
        def head(x_t: Array, t: Array) -> Array:
            return predict(params, points.features, x_t, t, points.proprio, points.domain_id)

        bound = spread and partial(spread, params, points.features, points.proprio)
        return flow.gaussians(head, points.latents, points.denoise_step, noise, K, scale, points.level, bound)

    def log_prob(steps: flow.Gaussians, points: Batch) -> Array:
        return flow.log_density(steps, points.latents, noise, scale)

    def policy_objective(params: PyTree, points: Batch, anchors: _Anchors, weight: Array):
        steps = gaussians(params, points)
        value, metrics = loss.policy_loss(
            log_prob(steps, points),
            anchors.proximal,
            points.old_log_prob,
            points.advantages,
            points.step_mask,
            weight,
            recipe,
        )
        if anchors.reference is not None:
            divergence = flow.kl(steps, anchors.reference, noise)
            kl = loss.weighted_mean(loss.chunk_log_prob(divergence, points.step_mask), weight)
            value, metrics = value + recipe.reference_kl_coef * kl, metrics | {"reference_kl": kl}
        entropy = flow.entropy(steps.std, noise, points.step_mask.shape[1])
        entropy = loss.chunk_log_prob(entropy, points.step_mask)
        if recipe.entropy_coef:
            numbers = steps.std[0].size * jnp.maximum(points.step_mask.sum(-1), 1)
            value -= recipe.entropy_coef * loss.weighted_mean(entropy / numbers, weight)
        return value, metrics | {"entropy": loss.weighted_mean(entropy, weight)}

    def make_anchors(state: TrainState, batch: Batch, size: int) -> _Anchors:
        proximal, reference = batch.old_log_prob, None
        if recipe.decoupled:
            proximal = _in_blocks(
                lambda points: log_prob(gaussians(state.params, points), points), batch, size
            )
        if recipe.reference_kl_coef:
            reference = _in_blocks(lambda points: gaussians(state.reference, points), batch, size)
        return _Anchors(proximal, reference)

    def critic_objective(params: PyTree, points: Batch, weight: Array):
        return recipe.value_coef * loss.value_loss(
            critic(params, points.features, points.proprio),
            points.old_values,
            points.value_targets,
            weight,
            recipe.value_clip,
            recipe.huber_delta,
        )

    def policy_step(progress: _Progress, points: Batch, anchors: _Anchors, weight: Array) -> _Progress:
        state = progress.state
        with jax.named_scope("policy_step"):
            (value, metrics), grads = jax.value_and_grad(policy_objective, has_aux=True)(
                state.params, points, anchors, weight
            )
            grads, grad_norm = clip_by_global_norm(grads, recipe.grad_clip_norm)
            direction, opt_state = tx.update(grads, state.opt_state, state.params)
        finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
        exceeds = jnp.bool_(False) if recipe.target_kl is None else metrics["approx_kl"] > recipe.target_kl
        applied = finite & ~exceeds
        params = descend(state.params, direction, state.lr * warmup(opt_state, recipe.lr_warmup_steps))
        metrics = {"policy_loss": value, "grad_norm": grad_norm, **metrics}
        return progress._replace(
            state=state.replace(
                params=_where(applied, params, state.params),
                opt_state=_where(applied, opt_state, state.opt_state),
            ),
            stopped=finite & exceeds,
            policy_sums=_add_if(finite, progress.policy_sums, metrics),
            kl_sum=progress.kl_sum + jnp.where(finite, metrics["approx_kl"], 0.0),
            kl_n=progress.kl_n + finite,
            policy_steps=progress.policy_steps + applied,
            skipped_steps=progress.skipped_steps + ~finite,
        )

    def critic_step(progress: _Progress, points: Batch, weight: Array) -> _Progress:
        state = progress.state
        with jax.named_scope("critic_step"):
            value, grads = jax.value_and_grad(critic_objective)(state.critic_params, points, weight)
            state, grad_norm, finite = _apply_critic(state, value, grads, tx, recipe)
        metrics = {"value_loss": value, "critic_grad_norm": grad_norm}
        return progress._replace(
            state=state,
            critic_sums=_add_if(finite, progress.critic_sums, metrics),
            skipped_steps=progress.skipped_steps + ~finite,
        )

    def update(state: TrainState, batch: Batch, n_valid: Array | int) -> tuple[TrainState, Metrics]:
        capacity = batch.old_log_prob.shape[0]
        size = min(recipe.minibatch_size, capacity)
        n_valid = jnp.asarray(n_valid, jnp.int32)
        num_minibatches = (n_valid + size - 1) // size
        with jax.named_scope("anchors"):
            anchors = make_anchors(state, batch, size)
        key = jax.random.fold_in(state.key, state.step)

        def epoch(index: Array, progress: _Progress) -> _Progress:
            order = _permutation(jax.random.fold_in(key, index), capacity, n_valid)
            # dynamic_slice clamps its start: without this margin the last minibatch would repeat points.
            order = jnp.concatenate([order, jnp.zeros(size, order.dtype)])

            def minibatch(i: Array, progress: _Progress) -> _Progress:
                start, stop = (j * n_valid // num_minibatches for j in (i, i + 1))
                counts = jnp.arange(size) < stop - start
                # An empty slot repeats a valid point at weight 0, since 0 · NaN padding would be NaN.
                rows = jnp.where(counts, jax.lax.dynamic_slice_in_dim(order, start, size), order[0])
                points, near = jax.tree.map(lambda x: x[rows], (batch, anchors))
                weight = counts.astype(jnp.float32)
                progress = jax.lax.cond(
                    progress.stopped, lambda p: p, lambda p: policy_step(p, points, near, weight), progress
                )
                # A group's advantages need no critic, and there are no targets to fit one to.
                return progress if recipe.advantage == "group" else critic_step(progress, points, weight)

            progress = progress._replace(
                kl_sum=jnp.where(progress.stopped, progress.kl_sum, 0.0),
                kl_n=jnp.where(progress.stopped, progress.kl_n, 0),
            )
            return jax.lax.fori_loop(jnp.int32(0), num_minibatches, minibatch, progress)

        reference_metrics = ("reference_kl",) if recipe.reference_kl_coef else ()
        progress = _Progress(
            state=state,
            stopped=jnp.bool_(False),
            policy_sums=_zeros(
                "policy_loss", "grad_norm", "entropy", *loss.POLICY_METRICS, *reference_metrics
            ),
            critic_sums=_zeros("value_loss", "critic_grad_norm"),
            kl_sum=jnp.float32(0),
            kl_n=jnp.int32(0),
            policy_steps=jnp.int32(0),
            skipped_steps=jnp.int32(0),
        )
        progress = jax.lax.fori_loop(0, recipe.num_epochs, epoch, progress)
        kl = progress.kl_sum / jnp.maximum(progress.kl_n, 1)
        metrics = {
            **_means(progress.policy_sums),
            **_means(progress.critic_sums),
            **_batch_metrics(batch, n_valid),
            "approx_kl": kl,
            "lr": state.lr,
            "kl_stopped": progress.stopped,
            "policy_steps": progress.policy_steps,
            "skipped_steps": progress.skipped_steps,
        }
        new_state = progress.state.replace(
            step=state.step + 1, lr=_adapt_lr(state.lr, kl, progress.kl_n > 0, recipe)
        )
        return new_state, {f"train/{name}": value for name, value in metrics.items()}

    def _batch_metrics(batch: Batch, n_valid: Array) -> Metrics:
        valid = jnp.arange(batch.old_log_prob.shape[0]) < n_valid
        weight = valid.astype(jnp.float32)
        values, targets = (jnp.where(valid, x, 0.0) for x in (batch.old_values, batch.value_targets))
        return {"explained_variance": loss.explained_variance(values, targets, weight)}

    return jax.jit(update, donate_argnums=0)


def make_critic_update(
    critic: Critic, recipe: Recipe
) -> Callable[[TrainState, CriticBatch, Array | int], tuple[TrainState, Metrics]]:
    """Build ``critic_update(state, batch, n_valid) -> (state, metrics)``: value-only steps after an update.

    ``recipe.critic.extra_steps`` minibatches are drawn with replacement. The loss is the plain Huber: value
    clipping is relative to the values at collection, which for older buffers have lost their meaning. Jitted,
    ``state`` donated.
    """
    tx = optimizer(recipe)

    def objective(params: PyTree, points: CriticBatch) -> Array:
        error = critic(params, points.features, points.proprio) - points.value_targets
        return recipe.value_coef * jnp.mean(loss.huber(error, recipe.huber_delta))

    def update(state: TrainState, batch: CriticBatch, n_valid: Array | int) -> tuple[TrainState, Metrics]:
        size = min(recipe.minibatch_size, batch.value_targets.shape[0])
        # The update has moved ``step`` on; its keys are folds of the epoch's index, so ours start after them.
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step - 1), recipe.num_epochs)

        def step(i: Array, carry):
            state, sums, skipped = carry
            rows = jax.random.randint(jax.random.fold_in(key, i), (size,), 0, n_valid)
            points = jax.tree.map(lambda x: x[rows], batch)
            value, grads = jax.value_and_grad(objective)(state.critic_params, points)
            state, _, finite = _apply_critic(state, value, grads, tx, recipe)
            return state, _add_if(finite, sums, {"extra_value_loss": value}), skipped + ~finite

        num_steps = jnp.where(jnp.asarray(n_valid) > 0, recipe.critic.extra_steps, 0)
        carry = (state, _zeros("extra_value_loss"), jnp.int32(0))
        state, sums, skipped = jax.lax.fori_loop(jnp.int32(0), num_steps.astype(jnp.int32), step, carry)
        metrics = {**_means(sums), "extra_skipped_steps": skipped}
        return state, {f"train/{name}": value for name, value in metrics.items()}

    return jax.jit(update, donate_argnums=0)


def _apply_critic(state: TrainState, value: Array, grads: PyTree, tx, recipe: Recipe):
    grads, grad_norm = clip_by_global_norm(grads, recipe.grad_clip_norm)
    direction, opt_state = tx.update(grads, state.critic_opt_state, state.critic_params)
    finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
    params = descend(state.critic_params, direction, recipe.critic.lr)
    state = state.replace(
        critic_params=_where(finite, params, state.critic_params),
        critic_opt_state=_where(finite, opt_state, state.critic_opt_state),
    )
    return state, grad_norm, finite


def _adapt_lr(lr: Array, kl: Array, measured: Array, recipe: Recipe) -> Array:
    if not recipe.adaptive_lr or recipe.target_kl is None:
        return lr
    factor = jnp.where(kl > recipe.target_kl, 1 / LR_STEP, jnp.where(kl < recipe.target_kl / 3, LR_STEP, 1.0))
    adapted = jnp.clip(lr * factor, recipe.lr / LR_RANGE, recipe.lr * LR_RANGE)
    return jnp.where(measured, adapted, lr).astype(lr.dtype)


def _permutation(key: Array, capacity: int, n_valid: Array) -> Int[Array, " N"]:
    """Random order of the first ``n_valid`` indices, the others behind them."""
    draws = jnp.where(
        jnp.arange(capacity) < n_valid, jax.random.uniform(key, (capacity,), jnp.float32), jnp.inf
    )
    return jnp.argsort(draws).astype(jnp.int32)


def _where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def _zeros(*names: str) -> Metrics:
    return {name: jnp.float32(0) for name in (*names, "n")}


def _add_if(condition: Array, sums: Metrics, metrics: Metrics) -> Metrics:
    terms = {**metrics, "n": jnp.float32(1)}
    return {name: total + jnp.where(condition, terms[name], 0.0) for name, total in sums.items()}


def _means(sums: Metrics) -> Metrics:
    count = jnp.maximum(sums["n"], 1.0)
    return {name: total / count for name, total in sums.items() if name != "n"}
