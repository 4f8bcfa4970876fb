"""AdamW as torch has it, whose learning rate is data.

Weight decay and gradient clipping follow torch: decoupled from the moments, and as in
``torch.nn.utils.clip_grad_norm_``.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from pirl_jax.typing import Array, Metrics, PyTree


def named_leaves(params: PyTree) -> list[tuple[str, Array]]:
    """Return the leaves of nested dicts with their paths, joined by dots."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(".".join(str(entry.key) for entry in path), leaf) for path, leaf in leaves]


def masters(params: PyTree) -> PyTree:
    """Return parameters to train, in float32 whatever they are stored in.

    A bfloat16 number has 8 bits of mantissa: steps of less than its 256th part, which is what a fine-tuning
    learning rate makes, would round away. The optimiser's moments follow the parameters' dtype.
    """
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), params)


SAMPLE = 2**16
"""Numbers of a tensor that say how far it has moved: a copy of all would take as much memory as itself."""


def sample(params: PyTree) -> PyTree:
    """Return of each parameter at most ``SAMPLE`` numbers, evenly spread, as a vector."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1)[:: -(-leaf.size // SAMPLE)], params)


def movement(before: PyTree, after: PyTree, group: Callable[[str], str | None]) -> Metrics:
    """Say how far parameters have moved, by group, judged by a sample of each.

    Args:
        before: ``sample`` of nested dicts of arrays.
        after: the arrays, later.
        group: dotted name → group; None leaves the parameter out.

    Returns:
        For each group ``update_ratio/<group>``, ‖after - before‖ / ‖before‖, and ``moved/<group>``, the share
        of its numbers that are not what they were.
    """
    sums: dict[str, list[Array]] = {}
    for (name, old), now, new in zip(
        named_leaves(before), jax.tree.leaves(after), jax.tree.leaves(sample(after))
    ):
        if (key := group(name)) is None:
            continue
        difference = (new - old).astype(jnp.float32)
        stands_for = now.size / old.size
        terms = (
            stands_for * jnp.sum(jnp.square(difference)),
            stands_for * jnp.sum(jnp.square(old.astype(jnp.float32))),
            stands_for * jnp.sum(new != old),
            jnp.float32(now.size),
        )
        sums[key] = [total + term for total, term in zip(sums.get(key, [jnp.float32(0)] * 4), terms)]
    metrics = {}
    for key, (change, size, moved, count) in sums.items():
        # Parameters that are all 0 have no size to compare with: the change alone then.
        metrics[f"update_ratio/{key}"] = jnp.sqrt(change) / jnp.where(size > 0, jnp.sqrt(size), 1.0)
        metrics[f"moved/{key}"] = moved / count
    return metrics


def clip_factor(grads: PyTree, max_norm: float) -> tuple[Array, Array]:
    """Return what torch would scale gradients by to at most ``max_norm`` (with its 1e-6), and their norm."""
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
    return jnp.minimum(1.0, max_norm / (norm + 1e-6)), norm


def scaled(tree: PyTree, factor: Array) -> PyTree:
    """``tree·factor``, each leaf in its own dtype."""
    return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), tree)


def clip_by_global_norm(grads: PyTree, max_norm: float) -> tuple[PyTree, Array]:
    """Scale gradients to at most ``max_norm`` as torch does, and return the norm before."""
    factor, norm = clip_factor(grads, max_norm)
    return scaled(grads, factor), norm


def clip_like_torch(max_norm: float) -> optax.GradientTransformation:
    """``clip_by_global_norm`` as an optax transformation; none if ``max_norm`` is 0, as in LeRobot."""
    if max_norm <= 0:
        return optax.identity()
    return optax.stateless(lambda grads, params: clip_by_global_norm(grads, max_norm)[0])


def adamw_direction(
    betas: tuple[float, float], eps: float, weight_decay: float
) -> optax.GradientTransformation:
    """AdamW up to its step length: updates are to be multiplied by -lr, so that lr stays out of the state."""
    direction = optax.scale_by_adam(b1=betas[0], b2=betas[1], eps=eps)
    return optax.chain(direction, optax.add_decayed_weights(weight_decay)) if weight_decay else direction


def warmup(opt_state: optax.OptState, steps: int) -> Array:
    """Factor of the learning rate for the step that led to ``opt_state``: min(n/steps, 1) for step n."""
    count = optax.tree_utils.tree_get(opt_state, "count")
    return jnp.minimum(1.0, count / max(steps, 1))


def descend(params: PyTree, direction: PyTree, lr: Array | float) -> PyTree:
    """``params - lr·direction``."""
    return jax.tree.map(lambda p, d: p - jnp.asarray(lr, p.dtype) * d, params, direction)


def select(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """``new`` where the condition, a scalar, holds; else ``old``."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)
