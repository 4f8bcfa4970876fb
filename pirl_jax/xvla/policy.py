"""X-VLA as PI-RL sees it: a frozen encoder (``vlm``) and a trainable flow head (``transformer``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.channels import xvla_groups
from pirl_jax.policy import FlowPolicy
from pirl_jax.typing import Array
from pirl_jax.xvla.actions import prepare_proprio
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.images import normalize_images
from pirl_jax.xvla.model import XVLA, Features, Params
from pirl_jax.xvla.value import Critic, summarize

HEAD = "transformer"
"""The subtree that online RL trains: soft prompts, domain layers and blocks. The rest is frozen."""


def flow_policy(config: XVLAConfig) -> FlowPolicy:
    """Return the pure functions and sizes that the learner works with."""
    model = XVLA(config)

    def split(params: Params) -> tuple[Params, Params]:
        return {HEAD: params[HEAD]}, {name: tree for name, tree in params.items() if name != HEAD}

    def merge(trainable: Params, frozen: Params) -> Params:
        return {**frozen, HEAD: trainable[HEAD]}

    def encode(frozen: Params, images: Array, tokens: Array) -> Features:
        return cast(
            Features, model.apply({"params": frozen}, normalize_images(images), tokens, method="encode")
        )

    def predict(
        trainable: Params, features: Features, x_t: Array, t: Array, proprio: Array, domain_id: Array
    ) -> Array:
        inputs = (features, x_t, t, proprio, domain_id)
        return cast(Array, model.apply({"params": {HEAD: trainable[HEAD]}}, *inputs, method="predict"))

    return FlowPolicy(
        split=split,
        merge=merge,
        encode=encode,
        predict=predict,
        prepare_proprio=lambda state: np.asarray(prepare_proprio(jnp.asarray(state), config.dim_proprio)),
        summarize=summarize,
        summary_dim=config.vision.projection_dim + config.dim_proprio,
        num_denoising_steps=config.num_denoising_steps,
        chunk_size=config.chunk_size,
        n_action_steps=config.n_action_steps,
        dim_action=config.dim_action,
        channel_groups=xvla_groups(config.action_mode, config.real_action_dim),
    )


def critic_fn(hidden_dims: Sequence[int]) -> Callable[[Params, Features, Array], Array]:
    """Return the critic as ``(critic params, features, proprio) -> values``."""
    critic = Critic(tuple(hidden_dims))
    return lambda params, features, proprio: cast(Array, critic.apply({"params": params}, features, proprio))


def init_critic(config: XVLAConfig, hidden_dims: Sequence[int], key: Array) -> Params:
    """Draw the critic's parameters for X-VLA's feature width."""
    width = config.vision.projection_dim
    features = Features(vlm=jnp.zeros((1, 1, width)), aux=jnp.zeros((1, 0, width)))
    return jax.jit(Critic(tuple(hidden_dims)).init)(key, features, jnp.zeros((1, config.dim_proprio)))[
        "params"
    ]
