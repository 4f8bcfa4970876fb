"""What a trial update on a few episodes says of a run; nothing of it is kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pirl_jax.diagnosis.finding import Finding
from pirl_jax.recipe import OptimizerConfig
from pirl_jax.update.batch import Batch
from pirl_jax.update.method import Method
from pirl_jax.update.state import TrainState
from pirl_jax.update.update import Programs, make_update

_NAMED = 4
"""Parts of a policy that are all named."""
_FAR_BEYOND = 2.0
"""Times ``target_kl`` that an update may lead: the step that passes it ends the update."""


class Trial:
    """Updates on one batch, each from a copy of the state.

    Args:
        method: of the run, without demonstrations.
        state: before the update; not donated.
        batch: what it learns from.
        n_valid: points in it.
    """

    def __init__(self, method: Method, state: TrainState, batch: Batch, n_valid: int) -> None:
        self._method, self._state = method, state
        self._batch, self._n = batch, n_valid

    @property
    def optimizer(self) -> OptimizerConfig:
        """Numbers of the run."""
        return self._method.optimizer

    def update(self, lr: float | None = None, **changes: Any) -> tuple[TrainState, dict[str, float]]:
        """Update a copy of the state.

        Args:
            lr: in place of the state's.
            changes: in the optimiser's numbers.
        """
        optimizer = dataclasses.replace(self.optimizer, **changes)
        start = jax.tree.map(jnp.copy, self._state)
        if lr is not None:
            start = start.replace(lr=jnp.asarray(lr, jnp.float32))
        update = make_update(Programs(dataclasses.replace(self._method, optimizer=optimizer)))
        state, metrics = update(start, self._batch, self._n)
        return state, {name: float(value) for name, value in metrics.items()}

    @cached_property
    def still(self) -> tuple[dict[str, float], dict[str, float]]:
        """One full-batch step of length zero: everything is evaluated, nothing moves.

        Returns:
            The norm of each group's gradient, as clipped, and the metrics.
        """
        size = self._batch.old_log_prob.shape[0]
        numbers = {"num_epochs": 1, "minibatch_size": size, "target_kl": None, "adaptive_lr": False}
        state, metrics = self.update(lr=0.0, **numbers)
        # After one step from zero, Adam's first moment is (1 - β₁) times the clipped gradient.
        moments = optax.tree_utils.tree_get(state.opt_state, "mu")
        squares: dict[str, float] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(moments):
            group = "/".join(str(entry.key) for entry in path[:2])
            squares[group] = squares.get(group, 0.0) + float(jnp.sum(leaf**2))
        beta = self.optimizer.betas[0]
        return {group: math.sqrt(square) / (1 - beta) for group, square in squares.items()}, metrics

    def advantages(self) -> Finding:
        """Is no chunk's advantage out of all proportion?"""
        values = np.asarray(self._batch.advantages)[: self._n]
        return Finding(
            "advantages",
            f"std {values.std():.3g}, from {values.min():.3g} to {values.max():.3g}, "
            f"{100 * (values > 0).mean():.0f} % of {self._n} chunks above zero",
            bool(np.isfinite(values).all()) and abs(values).max() <= 10 * max(values.std(), 1e-9),
            "One chunk or two carry the update: play more episodes for each (algorithm.rollout."
            "episodes_per_update), or start from a policy that succeeds and fails more evenly.",
        )

    def ratio(self) -> Finding:
        """Is every probability ratio one before the policy has moved?"""
        _, metrics = self.still
        # k3 is (log ratio)²/2 near a ratio of one.
        deviation = math.sqrt(2 * max(metrics["train/approx_kl"], 0.0))
        return Finding(
            "the ratio is one before the first step",
            f"root mean square of its logarithm {deviation:.2g}",
            deviation < 1e-3,
            "The update scores actions otherwise than on arrival; please report it with your config.",
        )

    def gradients(self) -> list[Finding]:
        """Does a gradient reach the policy, and which part of it?"""
        clipped, metrics = self.still
        norm, limit = metrics["train/grad_norm"], self.optimizer.grad_clip_norm
        clip = min(1.0, limit / (norm + 1e-6))
        norms = {group: value / clip for group, value in clipped.items()}
        whole = Finding(
            "gradient norm",
            f"{norm:.3g}, clipped to {limit}; {_in_short(norms)}",
            math.isfinite(norm) and norm > 0,
            "No gradient reaches the policy: all advantages are equal, or nothing is trainable.",
        )
        advice = "Not finite: lower algorithm.optimizer.lr, raise algorithm.noise.level."
        return [
            whole,
            *(
                Finding(f"gradient norm of {group}", f"{value:.3g}", False, advice)
                for group, value in norms.items()
                if not math.isfinite(value)
            ),
        ]


def _in_short(norms: Mapping[str, float]) -> str:
    """Name the parts of a policy with their gradients' norms; of many the smallest and the largest."""
    ordered = sorted(norms.items(), key=lambda item: item[1])
    shown = ordered if len(ordered) <= _NAMED else [ordered[0], ordered[-1]]
    words = (" to " if shown is not ordered else ", ").join(f"{value:.3g} in {part}" for part, value in shown)
    return words if shown is ordered else f"of {len(ordered)} parts, {words}"


def size_of_step(
    metrics: Mapping[str, float], log_weights: np.ndarray, optimizer: OptimizerConfig
) -> Finding:
    """Does an update stay near the policy that acted?

    Args:
        metrics: of the update.
        log_weights: how much likelier each chunk is after it, in nats.
        optimizer: the recipe's.
    """
    weights = np.exp(log_weights - log_weights.max())
    effective = float(weights.sum() ** 2 / (weights**2).sum() / len(weights))
    # The update's own KL is of each minibatch before its step: one step that leads far away leaves it at 0.
    after = float(np.mean(np.expm1(log_weights) - log_weights))
    planned = optimizer.num_epochs * -(-len(log_weights) // optimizer.minibatch_size)
    target = optimizer.target_kl
    beyond = target is not None and after > target
    eased = [name for name in ("lr_warmup_steps", "adaptive_lr") if getattr(optimizer, name)]
    ended = ", then target_kl ended it" if metrics["train/kl_stopped"] else ""
    against = f", with a target_kl of {target:g}" if target else ""
    value = (
        f"{metrics['train/policy_steps']:.0f} of {planned} minibatch steps{ended}. The policy is {after:.3g} "
        f"nats a chunk (KL) from the one that played{against}; the "
        f"episodes are worth {100 * effective:.0f} % of as many that it would play itself"
    )
    if beyond and eased:
        value += f". Beyond its target in the trial; the run's own steps are shorter ({', '.join(eased)})"
    return Finding(
        "the first update",
        value,
        effective > 0.3 and (target is None or bool(eased) or after <= _FAR_BEYOND * target),
        "It moves too far from the policy that acted: lower algorithm.optimizer.lr (now "
        f"{optimizer.lr}) or num_epochs, set target_kl, or warm up (lr_warmup_steps).",
    )
