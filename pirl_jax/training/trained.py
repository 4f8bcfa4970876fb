"""What a run trains, in words."""

from __future__ import annotations

from collections.abc import Callable

from pirl_jax.optim import named_leaves
from pirl_jax.typing import PyTree


def summary(params: PyTree, group: Callable[[str], str | None]) -> str:
    """Say which groups of parameters are trained, and how large they are.

    Args:
        params: nested dicts of arrays.
        group: dotted name → group; None for a parameter that is kept as it is.

    Raises:
        ValueError: nothing is trained.
    """
    counts: dict[str | None, tuple[int, int]] = {}
    for name, leaf in named_leaves(params):
        tensors, numbers = counts.get(group(name), (0, 0))
        counts[group(name)] = tensors + 1, numbers + leaf.size
    kept = counts.pop(None, None)
    if not counts:
        raise ValueError(
            "nothing is trained: the policy's flags freeze all that is selected. Unset one of "
            "policy.freeze_*, train_policy_transformer=false and train_soft_prompts=false, or (RL) select "
            "something else by algorithm.trainable."
        )
    lines = [f"{name}: {_size(*counts[name])}" for name in sorted(counts, key=str)]
    return "trained: " + "; ".join(lines) + (f". Kept as they are: {_size(*kept)}" if kept else "")


def _size(tensors: int, numbers: int) -> str:
    return f"{tensors} tensor{'' if tensors == 1 else 's'}, {numbers:,} parameters"
