"""Which microbatch fits the memory there is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pirl_jax.training.budget import FRACTION, SLACK, Budget, allowed, readable
from pirl_jax.training.needs import Needs, needs
from pirl_jax.training.parts import minibatch_of
from pirl_jax.training.plan import Plan


class Fit(NamedTuple):
    """A plan that fits, and what it takes."""

    plan: Plan
    needs: Needs


def fit(plan: Plan, budget: Budget, beside: Mapping[str, int] = MappingProxyType({})) -> Fit:
    """Choose how many points of a minibatch are in work at a time: as many as the memory allows.

    Args:
        plan: of the run, whose ``optimizer.microbatch_size`` is ``auto``, or a number, which is then only
            checked.
        budget: memory of the device.
        beside: bytes of what else lies on it, by name.

    Returns:
        The plan, whose recipe has the number, unless the whole minibatch fits: then it says ``auto``.

    Raises:
        ValueError: It cannot fit; says what is needed and what to change.
    """

    def tried(size: int) -> Fit:
        smaller = plan.with_microbatch(size)
        return Fit(smaller, needs(smaller, beside))

    recipe, whole = plan.parts.recipe, Fit(plan, needs(plan, beside))
    if _fits(whole, budget):
        return whole
    if recipe.optimizer.microbatch_size != "auto":
        raise ValueError(
            f"algorithm.optimizer.microbatch_size={recipe.optimizer.microbatch_size} takes "
            f"{readable(whole.needs.device)}, and {readable(int(allowed(budget)))} may be planned with, "
            f"{1 - SLACK:.0%} of {readable(budget.size)} ({budget.source}). Lower microbatch_size, or leave "
            "the choice to auto."
        )
    sizes = candidates(minibatch_of(recipe))[1:]
    least = tried(sizes[-1]) if sizes else whole
    if not _fits(least, budget):
        raise ValueError(_refusal(least.needs, budget))
    # Halved between what fits and what does not: the search compiles few of the sizes.
    best, fitting, unfitting = least, len(sizes) - 1, -1
    while fitting - unfitting > 1:
        middle = (fitting + unfitting) // 2
        found = tried(sizes[middle])
        if _fits(found, budget):
            best, fitting = found, middle
        else:
            unfitting = middle
    return best


def candidates(size: int) -> list[int]:
    """Return the parts a minibatch may be worked off in: all of it, half of it, and so on, down to 1."""
    sizes = [size]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def _fits(fit: Fit, budget: Budget) -> bool:
    return fit.needs.device <= allowed(budget)


def _refusal(needs: Needs, budget: Budget) -> str:
    lying = ", ".join(f"{name} {readable(size)}" for name, size in needs.lying.items())
    return (
        f"this run does not fit its device: it takes {readable(needs.device)} even with one point in work "
        f"at a time ({lying}), and {readable(int(allowed(budget)))} may be planned with, {1 - SLACK:.0%} of "
        f"{readable(budget.size)} ({budget.source}). Use a larger card, "
        f"give JAX more of it ({FRACTION}=.9, if no actor shares it), train less "
        "(algorithm.trainable=soft_prompts), or use a smaller policy."
    )
