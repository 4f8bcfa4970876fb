"""X-VLA as PI-RL sees it: a frozen encoder (``vlm``) and a trainable flow head (``transformer``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import CriticConfig
from pirl_jax.typing import Array
from pirl_jax.xvla.actions import prepare_proprio
from pirl_jax.xvla.channels import xvla_gripper_logits, xvla_groups
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.images import normalize_images
from pirl_jax.xvla.model import XVLA, Features, Params, sample_times
from pirl_jax.xvla.value import Critic

FLOW_HEAD = "transformer"
"""The subtree that online RL trains: soft prompts, domain layers and blocks. The rest is frozen."""


def flow_policy(config: XVLAConfig) -> FlowPolicy:
    """Return the pure functions and sizes that the learner works with."""
    model = XVLA(config)

    def split(params: Params) -> tuple[Params, Params]:
        return {FLOW_HEAD: params[FLOW_HEAD]}, {
            name: tree for name, tree in params.items() if name != FLOW_HEAD
        }

    def merge(trainable: Params, frozen: Params) -> Params:
        return {**frozen, FLOW_HEAD: trainable[FLOW_HEAD]}

    def encode(frozen: Params, images: Array, tokens: Array) -> Features:
        return cast(
            Features, model.apply({"params": frozen}, normalize_images(images), tokens, method="encode")
        )

    def predict(
        trainable: Params, features: Features, x_t: Array, t: Array, proprio: Array, domain_id: Array
    ) -> Array:
        inputs = (features, x_t, t, proprio, domain_id)
        return cast(
            Array, model.apply({"params": {FLOW_HEAD: trainable[FLOW_HEAD]}}, *inputs, method="predict")
        )

    def supervised_loss(
        trainable: Params, features: Features, proprio: Array, domain_id: Array, action: Array, key: Array
    ) -> Array:
        size = action.shape[0]
        time_key, noise_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (size, config.chunk_size, config.dim_action))
        inputs = (features, proprio, domain_id, action, noise, sample_times(time_key, size))
        parts = cast(dict, model.apply({"params": trainable}, *inputs, method="head_loss"))
        return jnp.stack(list(parts.values())).sum()

    def pooled(features: Features) -> Array:
        return features.vlm.astype(jnp.float32).mean(axis=1)

    def vlm_mean(trainable: Params, features: Features, proprio: Array, domain_id: Array) -> Array:
        return pooled(features)

    def summarize(features: Features, proprio: Array) -> Array:
        return jnp.concatenate([pooled(features), proprio], axis=-1)

    def expert_mean(trainable: Params, features: Features, proprio: Array, domain_id: Array) -> Array:
        # The mean of pure noise at its time: every observation's value is asked at the same point.
        size = len(domain_id)
        x_t = jnp.zeros((size, config.chunk_size, config.dim_action))
        inputs = (features, x_t, jnp.ones(size), proprio, domain_id)
        return cast(Array, model.apply({"params": trainable}, *inputs, method="hidden")).mean(axis=1)

    return FlowPolicy(
        split=split,
        merge=merge,
        encode=encode,
        predict=predict,
        supervised_loss=supervised_loss,
        critic_inputs={"vlm": vlm_mean, "expert": expert_mean},
        prepare_proprio=lambda state: np.asarray(prepare_proprio(jnp.asarray(state), config.dim_proprio)),
        summarize=summarize,
        summary_dim=config.vision.projection_dim + config.dim_proprio,
        num_denoising_steps=config.num_denoising_steps,
        chunk_size=config.chunk_size,
        n_action_steps=config.n_action_steps,
        dim_action=config.dim_action,
        channel_groups=xvla_groups(config.action_mode, config.real_action_dim),
        gripper_logits=xvla_gripper_logits(config.action_mode),
    )


def critic_fn(hidden_dims: Sequence[int]) -> Callable[[Params, Array, Array], Array]:
    """Return the critic as ``(critic params, inputs, proprio) -> values``."""
    critic = Critic(tuple(hidden_dims))
    return lambda params, inputs, proprio: cast(Array, critic.apply({"params": params}, inputs, proprio))


def init_critic(config: XVLAConfig, critic: CriticConfig, key: Array) -> Params:
    """Draw the critic's parameters for the width of its input."""
    width = {"vlm": config.vision.projection_dim, "expert": config.hidden_size}[critic.input]
    init = jax.jit(Critic(tuple(critic.hidden_dims)).init)
    return init(key, jnp.zeros((1, width)), jnp.zeros((1, config.dim_proprio)))["params"]
