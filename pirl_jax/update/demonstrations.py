"""Demonstrations that hold the policy near what it was taught: encoded once, a minibatch a policy step."""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.console.progress import Progress
from pirl_jax.placement import ONE_DEVICE, Placement
from pirl_jax.policy import FlowPolicy, encoder
from pirl_jax.recipe import DemonstrationsConfig
from pirl_jax.supervised.frames import Frames
from pirl_jax.typing import Array, Features, Float, Int, Params, PRNGKeyArray

_ENCODED_AT_ONCE = 32


class Demonstrations(flax.struct.PyTreeNode):
    """F frames with the action chunks that follow them."""

    features: Features
    """``[F, …]``, what the frozen encoder makes of the observations."""
    proprio: Float[Array, "F P"]
    domain_id: Int[Array, " F"]
    action: Float[Array, "F H n"]


def encode(
    policy: FlowPolicy, frozen: Params, frames: Frames, placement: Placement = ONE_DEVICE
) -> Demonstrations:
    """Run the frozen encoder over frames, a few at a time; the result lies on the device, or on each."""
    run = encoder(policy)
    count = len(frames.action)
    blocks = []
    with Progress("encoding demonstrations", count, "frames") as progress:
        for start in range(0, count, _ENCODED_AT_ONCE):
            # The last block starts over at the first frame, so that one compilation serves all.
            rows = np.arange(start, start + _ENCODED_AT_ONCE) % count
            blocks.append(jax.device_get(run(frozen, frames.images[rows], frames.tokens[rows])))
            progress.at(min(start + _ENCODED_AT_ONCE, count))
    features = jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *blocks)
    arrays = placement.whole((features, frames.proprio, frames.domain_id, frames.action))
    return Demonstrations(*arrays)


def drawn_loss(
    supervised_loss: Callable[..., Array],
    batch_size: int,
    params: Params,
    demonstrations: Demonstrations,
    key: PRNGKeyArray,
    placement: Placement = ONE_DEVICE,
) -> Float[Array, ""]:
    """Return the supervised loss of ``batch_size`` frames that ``key`` draws with replacement.

    Args:
        supervised_loss: ``FlowPolicy.supervised_loss``.
        batch_size: frames.
        params: trainable ones.
        demonstrations: to draw from.
        key: of the frames, and of the loss's own noise and times.
        placement: whose devices share the frames.
    """
    rows_key, noise_key = jax.random.split(key)
    rows = jax.random.randint(rows_key, (batch_size,), 0, demonstrations.domain_id.shape[0])
    frames = placement.shared(jax.tree.map(lambda x: x[rows], demonstrations))
    inputs = (frames.features, frames.proprio, frames.domain_id, frames.action)
    return supervised_loss(params, *inputs, noise_key)


def coef_at(config: DemonstrationsConfig, update: Array | int) -> Float[Array, ""]:
    """Weight of the loss in the update that follows ``update`` others: linear, then constant."""
    fraction = jnp.minimum(update / config.decay_updates, 1.0) if config.decay_updates else 0.0
    return jnp.asarray(config.coef + (config.final_coef - config.coef) * fraction, jnp.float32)
