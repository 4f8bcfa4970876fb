"""One PPO update as one jitted, donated function: epochs × minibatches over a padded batch of chunks.

The policy and the critic enter as callables on their trainable parameters, so that nothing here knows X-VLA:

    predict(params, features, x_t[B H A], t[B], proprio[B P], domain_id[B]) -> â or v [B H A]
    spread(params, features, proprio[B P], t[B]) -> log factor on the noise of each channel [B A]
    critic(critic_params, critic_input[B D], proprio[B P]) -> values [B]

``features`` is whatever pytree of arrays ``[B, ...]`` the frozen encoder made of the observations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pirl_jax.likelihood import flow, gripper
from pirl_jax.optim import clip_by_global_norm, descend, select, warmup
from pirl_jax.recipe import Recipe
from pirl_jax.typing import Array, Int, PyTree
from pirl_jax.update import losses, metric_means
from pirl_jax.update.batch import Batch, in_blocks
from pirl_jax.update.critic_update import ValueFunction, apply_critic_step
from pirl_jax.update.demonstrations import AnchorLoss, Demonstrations, anchor_coef
from pirl_jax.update.metric_means import Metrics
from pirl_jax.update.state import TrainState, optimizer

Predict = Callable[[PyTree, PyTree, Array, Array, Array, Array], Array]
Spread = Callable[[PyTree, PyTree, Array, Array], Array]
Imitation = Callable[[PyTree], tuple[Array, Array]]
"""``params -> `` the weighted supervised loss of a minibatch of demonstrations, and the loss itself."""

LR_STEP = 1.5
"""Factor of one adaptation of the learning rate (``Recipe.adaptive_lr``)."""
LR_RANGE = 10.0
"""The adapted learning rate stays within this factor of ``Recipe.lr``."""


class _Anchors(NamedTuple):
    """What the policy is held to, of each point; fixed during an update."""

    proximal: Array
    """Log-density of each chunk step under the policy that ratios are taken to."""
    reference: flow.Distribution | None
    """Distributions of the noised steps under the policy that the run began with."""


class _Progress(NamedTuple):
    """Carried through the minibatches of an update."""

    state: TrainState
    stopped: Array
    """No policy steps (any more) in this update: the critic warms up, or the KL has passed its target."""
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
    critic: ValueFunction,
    recipe: Recipe,
    chain: flow.Chain,
    spread: Spread | None = None,
    anchor: AnchorLoss | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Build ``update(state, batch, n_valid, demonstrations=None) -> (state, metrics)``.

    Jitted, ``state`` donated.

    Each epoch walks a fresh permutation of the ``n_valid`` first points in ⌈n_valid / minibatch_size⌉
    minibatches of (within one) equal size; the trip count is data, so one compilation serves every
    ``n_valid`` ≤ N. Policy and critic share no parameters: each has its own gradient, clipping and AdamW.

    * **KL stop**: a minibatch whose approximate KL exceeds ``target_kl`` is not applied and ends the
      *policy's* steps of this update. The critic goes on to the last epoch: its regression has nothing to do
      with the KL, and the next update's advantages want it fitted.
    * **Adaptive lr**: with the KL averaged over the last epoch that had policy minibatches, lr is divided by
      1.5 above ``target_kl``, multiplied by 1.5 below a third of it, within a factor 10 of ``Recipe.lr``. It
      acts on the next update.
    * **Critic warm-up**: the first ``Recipe.critic.warmup_updates`` updates have no policy steps, and the
      metrics of those steps are 0.
    * **Non-finite** losses or gradients: that step is skipped, and counted in ``train/skipped_steps``.

    Args:
        predict: flow head on the trainable parameters, in float32.
        critic: value function on detached features.
        recipe: every number of the method.
        chain: the policy's, with ``recipe.noise`` (``Chain.of``).
        spread: noise head on the trainable parameters (``noise_head.spread_fn``), for a mode that learns.
        anchor: with the weight of ``recipe.anchor`` part of each policy step's objective; needs
            ``demonstrations``. Its draws are a function of the state's key and step.
    """
    tx = optimizer(recipe)

    def distribution(params: PyTree, points: Batch) -> flow.Distribution:
        def head(x_t: Array, t: Array) -> Array:
            return predict(params, points.features, x_t, t, points.proprio, points.domain_id)

        bound = spread and partial(spread, params, points.features, points.proprio)
        return flow.distribution(chain, head, points.latents, points.denoise_step, points.level, bound)

    def log_prob(steps: flow.Distribution, points: Batch) -> Array:
        return flow.log_density(chain, steps, points.latents)

    def policy_objective(
        params: PyTree, points: Batch, anchors: _Anchors, weight: Array, imitation: Imitation | None
    ):
        steps = distribution(params, points)
        value, metrics = losses.policy_loss(
            log_prob(steps, points),
            anchors.proximal,
            points.old_log_prob,
            points.advantages,
            points.step_mask,
            weight,
            recipe,
        )
        if anchors.reference is not None:
            divergence = flow.kl(chain, steps, anchors.reference, points.latents)
            chunks = losses.chunk_log_prob(divergence, points.step_mask)
            kl = losses.weighted_mean(losses.by_share(chunks, points.share), weight)
            value, metrics = value + recipe.reference_kl_coef * kl, metrics | {"reference_kl": kl}
        entropy = flow.entropy(chain, steps.std, points.step_mask.shape[1])
        entropy = losses.chunk_log_prob(entropy, points.step_mask)
        metrics |= {"entropy": losses.weighted_mean(entropy, weight)}
        if recipe.entropy_coef:
            numbers = steps.std[0].size * jnp.maximum(points.step_mask.sum(-1), 1)
            bonus = losses.by_share(entropy / numbers, points.share)
            value -= recipe.entropy_coef * losses.weighted_mean(bonus, weight)
        if steps.gripper_logits is not None:
            outcome = flow.drawn_grippers(chain, points.latents)
            coins = gripper.entropy(steps.gripper_logits, outcome, recipe.noise)
            coins = losses.weighted_mean(losses.chunk_log_prob(coins, points.step_mask), weight)
            metrics |= {"gripper_entropy": coins}
        if imitation is not None:
            weighted, plain = imitation(params)
            value, metrics = value + weighted, metrics | {"anchor_loss": plain}
        return value, metrics

    def make_anchors(state: TrainState, batch: Batch, size: int) -> _Anchors:
        proximal, reference = batch.old_log_prob, None
        if recipe.decoupled:
            proximal = in_blocks(
                lambda points: log_prob(distribution(state.params, points), points), batch, size
            )
        if recipe.reference_kl_coef:
            reference = in_blocks(lambda points: distribution(state.reference, points), batch, size)
        return _Anchors(proximal, reference)

    def critic_objective(params: PyTree, points: Batch, weight: Array):
        assert points.critic_input is not None
        return recipe.value_coef * losses.value_loss(
            critic(params, points.critic_input, points.proprio),
            points.old_values,
            points.value_targets,
            weight,
            recipe.value_clip,
            recipe.huber_delta,
            points.share,
        )

    def policy_step(
        progress: _Progress, points: Batch, anchors: _Anchors, weight: Array, imitation: Imitation | None
    ) -> _Progress:
        state = progress.state
        with jax.named_scope("policy_step"):
            (value, metrics), grads = jax.value_and_grad(policy_objective, has_aux=True)(
                state.params, points, anchors, weight, imitation
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
                params=select(applied, params, state.params),
                opt_state=select(applied, opt_state, state.opt_state),
            ),
            stopped=finite & exceeds,
            policy_sums=metric_means.add_if(finite, progress.policy_sums, metrics),
            kl_sum=progress.kl_sum + jnp.where(finite, metrics["approx_kl"], 0.0),
            kl_n=progress.kl_n + finite,
            policy_steps=progress.policy_steps + applied,
            skipped_steps=progress.skipped_steps + ~finite,
        )

    def critic_step(progress: _Progress, points: Batch, weight: Array) -> _Progress:
        state = progress.state
        with jax.named_scope("critic_step"):
            value, grads = jax.value_and_grad(critic_objective)(state.critic_params, points, weight)
            state, grad_norm, finite = apply_critic_step(state, value, grads, tx, recipe)
        metrics = {"value_loss": value, "critic_grad_norm": grad_norm}
        return progress._replace(
            state=state,
            critic_sums=metric_means.add_if(finite, progress.critic_sums, metrics),
            skipped_steps=progress.skipped_steps + ~finite,
        )

    def update(
        state: TrainState,
        batch: Batch,
        n_valid: Array | int,
        demonstrations: Demonstrations | None = None,
    ) -> tuple[TrainState, Metrics]:
        capacity = batch.old_log_prob.shape[0]
        size = min(recipe.minibatch_size, capacity)
        n_valid = jnp.asarray(n_valid, jnp.int32)
        num_minibatches = (n_valid + size - 1) // size
        with jax.named_scope("anchors"):
            anchors = make_anchors(state, batch, size)
        key = jax.random.fold_in(state.key, state.step)
        # Epochs fold their index into the key, value-only steps the number of epochs.
        anchor_key = jax.random.fold_in(key, recipe.num_epochs + 1)
        coef = anchor_coef(recipe.anchor, state.step)

        def imitation_of(number: Array) -> Imitation | None:
            if anchor is None:
                return None

            def imitation(params: PyTree) -> tuple[Array, Array]:
                assert anchor is not None
                assert demonstrations is not None
                plain = anchor(params, demonstrations, jax.random.fold_in(anchor_key, number))
                return coef * plain, plain

            return imitation

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
                imitation = imitation_of(index * num_minibatches + i)
                progress = jax.lax.cond(
                    progress.stopped,
                    lambda p: p,
                    lambda p: policy_step(p, points, near, weight, imitation),
                    progress,
                )
                # A group's advantages need no critic, and there are no targets to fit one to.
                return progress if recipe.advantage == "group" else critic_step(progress, points, weight)

            progress = progress._replace(
                kl_sum=jnp.where(progress.stopped, progress.kl_sum, 0.0),
                kl_n=jnp.where(progress.stopped, progress.kl_n, 0),
            )
            return jax.lax.fori_loop(jnp.int32(0), num_minibatches, minibatch, progress)

        parts = {
            "reference_kl": recipe.reference_kl_coef,
            "gripper_entropy": chain.grippers,
            "anchor_loss": anchor,
        }
        optional = [name for name, part in parts.items() if part]
        warming_up = state.step < recipe.critic.warmup_updates
        progress = _Progress(
            state=state,
            stopped=warming_up,
            policy_sums=metric_means.zeros(
                "policy_loss", "grad_norm", "entropy", *losses.POLICY_METRICS, *optional
            ),
            critic_sums=metric_means.zeros("value_loss", "critic_grad_norm"),
            kl_sum=jnp.float32(0),
            kl_n=jnp.int32(0),
            policy_steps=jnp.int32(0),
            skipped_steps=jnp.int32(0),
        )
        progress = jax.lax.fori_loop(0, recipe.num_epochs, epoch, progress)
        kl = progress.kl_sum / jnp.maximum(progress.kl_n, 1)
        metrics = {
            **metric_means.means(progress.policy_sums),
            **metric_means.means(progress.critic_sums),
            **_batch_metrics(batch, n_valid),
            **({} if anchor is None else {"anchor_coef": coef}),
            "approx_kl": kl,
            "lr": state.lr,
            "kl_stopped": progress.stopped & ~warming_up,
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
        return {"explained_variance": losses.explained_variance(values, targets, weight)}

    return jax.jit(update, donate_argnums=0)


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
