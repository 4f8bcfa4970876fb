"""AdamW as torch has it, whose learning rate is data.

Both follow torch: decoupled weight decay, and clipping as in ``torch.nn.utils.clip_grad_norm_``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from pirl_jax.typing import Array, PyTree


def clip_by_global_norm(grads: PyTree, max_norm: float) -> tuple[PyTree, Array]:
    """Scale gradients to at most ``max_norm`` as torch does (with its 1e-6), and return the norm before."""
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
    scale = jnp.minimum(1.0, max_norm / (norm + 1e-6))
    return jax.tree.map(lambda g: g * scale.astype(g.dtype), grads), norm


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
