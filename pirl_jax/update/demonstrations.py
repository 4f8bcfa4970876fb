"""Demonstrations that hold the policy near what it was taught: encoded once, a minibatch a policy step."""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.policy import FlowPolicy, Params
from pirl_jax.recipe import AnchorConfig
from pirl_jax.supervised.frames import Frames
from pirl_jax.typing import Array, Float, Int, PRNGKeyArray, PyTree

AnchorLoss = Callable[[Params, "Demonstrations", PRNGKeyArray], Array]

_ENCODED_AT_ONCE = 32


class Demonstrations(flax.struct.PyTreeNode):
    """M frames with the action chunks that follow them."""

    features: PyTree
    """``[M, …]``, what the frozen encoder makes of the observations."""
    proprio: Float[Array, "M P"]
    domain_id: Int[Array, " M"]
    action: Float[Array, "M H n"]


def encode(policy: FlowPolicy, frozen: Params, frames: Frames) -> Demonstrations:
    """Run the frozen encoder over frames, a few at a time; the result lies on the device."""
    run = jax.jit(policy.encode)
    count = len(frames.action)
    blocks = []
    for start in range(0, count, _ENCODED_AT_ONCE):
        # The last block starts over at the first frame, so that one compilation serves all.
        rows = np.arange(start, start + _ENCODED_AT_ONCE) % count
        blocks.append(jax.device_get(run(frozen, frames.images[rows], frames.tokens[rows])))
    features = jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *blocks)
    arrays = jax.device_put((features, frames.proprio, frames.domain_id, frames.action))
    return Demonstrations(*arrays)


def make_anchor(supervised_loss: Callable[..., Array], anchor: AnchorConfig) -> AnchorLoss:
    """Return ``loss(params, demonstrations, key)`` of ``anchor.batch_size`` frames that ``key`` draws."""

    def loss(params: Params, demonstrations: Demonstrations, key: PRNGKeyArray) -> Array:
        rows_key, noise_key = jax.random.split(key)
        rows = jax.random.randint(rows_key, (anchor.batch_size,), 0, demonstrations.domain_id.shape[0])
        frames = jax.tree.map(lambda x: x[rows], demonstrations)
        inputs = (frames.features, frames.proprio, frames.domain_id, frames.action)
        return supervised_loss(params, *inputs, noise_key)

    return loss


def anchor_coef(anchor: AnchorConfig, step: Array | int) -> Array:
    """Weight of the loss in the update that follows ``step`` updates: linear, then constant."""
    fraction = jnp.minimum(step / anchor.decay_updates, 1.0) if anchor.decay_updates else 0.0
    return jnp.asarray(anchor.coef + (anchor.final_coef - anchor.coef) * fraction, jnp.float32)
