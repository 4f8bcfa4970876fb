"""What a run takes of its device, in bytes, and in words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.linear import full_precision
from pirl_jax.placement import bytes_of_one
from pirl_jax.training.budget import Budget, readable
from pirl_jax.training.parts import block_of, capacity_of, minibatch_of
from pirl_jax.training.plan import Plan, size_of
from pirl_jax.update.minibatch import slots

AHEAD = 2
"""Parts of a minibatch on the device: the one that is worked on, and the next."""
ACTOR_WORKING = 2**30
"""Bytes that an actor's process takes on its card beside the policy: CUDA itself, and activations."""
GRADIENT = 4
"""Forward passes that a point of a step costs: one, one again for what was not kept, and two backwards."""


@dataclass(frozen=True)
class Needs:
    """The memory of a run, in bytes."""

    lying: Mapping[str, int]
    """What lies on the device all the time, by what it is."""
    arrival: int
    """Beside that: encoding and scoring a block of observations."""
    update: int
    """Beside that: a minibatch step."""
    overlapping: bool
    """Episodes arrive while an update runs."""
    actor: int
    """What an actor takes, on the same card or another: the encoder, and the head in float32."""
    flops: float
    """Of an update of full size: encoding and scoring its observations, and its steps."""

    @property
    def device(self) -> int:
        """What the device holds at most."""
        passing = self.arrival + self.update if self.overlapping else max(self.arrival, self.update)
        return sum(self.lying.values()) + passing


def needs(plan: Plan, beside: Mapping[str, int]) -> Needs:
    """Compile the programs of a run and add up what they and its arrays take.

    Args:
        plan: of the run.
        beside: bytes of what else lies on the device, by name.
    """
    parts, recipe, state = plan.parts, plan.parts.recipe, plan.state
    minibatch, at_a_time = minibatch_of(recipe), block_of(recipe)
    block = parts.score.sizes[0]
    add, step = plan.add(at_a_time), plan.step(slots(parts.method, minibatch))
    encode, score = plan.encode(block), plan.score(block)
    stale = recipe.rollout.max_staleness
    pushed = plan.pushed
    observation = size_of(plan.features(1))
    lying = {
        "encoder": bytes_of_one(plan.frozen),
        "parameters, critic and moments": bytes_of_one(state),
        "the policy's gradient": bytes_of_one(state.params),
        f"{AHEAD} times {at_a_time} points": AHEAD * bytes_of_one(plan.part(at_a_time)),
        **beside,
    }
    if recipe.demonstrations.coef:
        lying["demonstrations"] = recipe.demonstrations.max_samples * observation
    # An older policy's parameters are brought to the device to score what it played.
    arrival = encode.working + score.working + bytes_of_one(plan.images(block)) + (pushed if stale else 0)
    capacity = capacity_of(recipe)
    points = recipe.rollout.episodes_per_update * recipe.rollout.max_chunks
    passes = 1 + recipe.objective.decoupled + GRADIENT * recipe.optimizer.num_epochs
    flops = (capacity * encode.flops + points * passes * score.flops) / block
    actor = size_of(plan.frozen) + size_of(state.params) + ACTOR_WORKING
    return Needs(lying, arrival, max(add.working, step.working), stale > 0, actor, flops)


def table(plan: Plan, needs: Needs, budget: Budget, rate: float) -> list[str]:
    """Say what a run takes of its device, line by line.

    Args:
        plan: of the run.
        needs: of the plan.
        budget: what the device has.
        rate: floating-point operations that the device does in a second.
    """
    recipe, parts = plan.parts.recipe, plan.parts
    minibatch, at_a_time = minibatch_of(recipe), block_of(recipe)
    device = {
        **needs.lying,
        f"to work on {parts.score.sizes[0]} observations that arrive": needs.arrival,
        f"to work on {at_a_time} of a minibatch of {minibatch}": needs.update,
        "at most": needs.device,
    }
    lines = [f"device memory: {readable(budget.size)} ({budget.source})", *lines_of(device)]
    if jax.default_backend() != "cpu":
        lines.append(f"an actor on the same card takes about {readable(needs.actor)} more")
    points = recipe.rollout.episodes_per_update * recipe.rollout.max_chunks
    lines.append(
        f"an update of {points} points: {needs.flops / 1e12:.3g} TFLOP, at best "
        f"{needs.flops / rate:.3g} s (a float32 product here runs at {rate / 1e12:.2g} TFLOP/s)"
    )
    return lines


def product_rate() -> float:
    """Measure the floating-point operations a second of a float32 product on the device."""
    size = 1024 if jax.default_backend() == "cpu" else 4096

    @jax.jit
    def product(a: jax.Array) -> jax.Array:
        with full_precision():
            return a @ a

    a = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), jnp.float32)
    product(a).block_until_ready()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def lines_of(sizes: Mapping[str, int]) -> list[str]:
    """Return a line for each size, by its name."""
    width = max(map(len, sizes))
    return [f"  {name:<{width}}  {readable(size):>10}" for name, size in sizes.items()]
