"""X-VLA as PI-RL sees it: a frozen encoder (``vlm``) and a trainable flow head (``transformer``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.linear import Precision
from pirl_jax.typing import Array, Params
from pirl_jax.xvla.actions import prepare_proprio
from pirl_jax.xvla.channels import xvla_gripper_logits, xvla_groups
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.images import normalize_images
from pirl_jax.xvla.model import XVLA, XVLAFeatures, sample_times
from pirl_jax.xvla.trainable import Selection, rl_part

FLOW_HEAD = "transformer"
"""The subtree that online RL may train: soft prompts, domain layers and blocks. The rest is frozen."""


@dataclass(frozen=True)
class XVLAFlowPolicy:
    """``pirl_jax.policy.FlowPolicy`` for X-VLA; its members are explained there."""

    config: XVLAConfig
    selection: Selection = "head"
    head_precision: Precision = "highest"

    parametrization = "data"

    @cached_property
    def _model(self) -> XVLA:
        return XVLA(self.config, self.head_precision)

    @property
    def num_denoising_steps(self) -> int:
        return self.config.num_denoising_steps

    @property
    def chunk_size(self) -> int:
        return self.config.chunk_size

    @property
    def dim_action(self) -> int:
        return self.config.dim_action

    @property
    def channel_groups(self) -> Mapping[str, tuple[int, ...]]:
        return xvla_groups(self.config.action_mode, self.config.real_action_dim)

    @property
    def gripper_logits(self) -> tuple[int, ...]:
        return xvla_gripper_logits(self.config.action_mode)

    @property
    def summary_dim(self) -> int:
        return self.config.vision.projection_dim + self.config.dim_proprio

    @property
    def critic_input_dims(self) -> Mapping[str, int]:
        """``vlm``: the mean of the VLM's tokens (V_vlm); ``expert``: of the head's states (V_expert)."""
        return {"vlm": self.config.vision.projection_dim, "expert": self.config.hidden_size}

    def split(self, params: Params) -> tuple[Params, Params]:
        frozen = {name: tree for name, tree in params.items() if name != FLOW_HEAD}
        return {FLOW_HEAD: params[FLOW_HEAD]}, frozen

    def merge(self, trainable: Params, frozen: Params) -> Params:
        return {**frozen, FLOW_HEAD: trainable[FLOW_HEAD]}

    def group(self, name: str) -> str | None:
        return rl_part(self.config, self.selection, name)

    def encode(self, frozen: Params, images: Array, tokens: Array) -> XVLAFeatures:
        return self._apply(frozen, normalize_images(images), tokens, method="encode")

    def predict(
        self,
        trainable: Params,
        features: XVLAFeatures,
        x_t: Array,
        t: Array,
        proprio: Array,
        domain_id: Array,
    ) -> Array:
        head = {FLOW_HEAD: trainable[FLOW_HEAD]}
        return self._apply(head, features, x_t, t, proprio, domain_id, method="predict")

    def supervised_loss(
        self,
        trainable: Params,
        features: XVLAFeatures,
        proprio: Array,
        domain_id: Array,
        action: Array,
        key: Array,
    ) -> Array:
        size = action.shape[0]
        time_key, noise_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (size, self.chunk_size, self.dim_action))
        inputs = (features, proprio, domain_id, action, noise, sample_times(time_key, size))
        parts = self._apply(trainable, *inputs, method="head_loss")
        return jnp.stack(list(parts.values())).sum()

    def critic_input(
        self, kind: str, trainable: Params, features: XVLAFeatures, proprio: Array, domain_id: Array
    ) -> Array:
        if kind == "vlm":
            return _pooled(features)
        # The mean of pure noise at its time: every observation's value is asked at the same point.
        size = len(domain_id)
        x_t = jnp.zeros((size, self.chunk_size, self.dim_action))
        inputs = (features, x_t, jnp.ones(size), proprio, domain_id)
        return self._apply(trainable, *inputs, method="hidden").mean(axis=1)

    def prepare_proprio(self, state: np.ndarray) -> np.ndarray:
        return prepare_proprio(state, self.config.dim_proprio)

    def summarize(self, features: XVLAFeatures, proprio: Array) -> Array:
        return jnp.concatenate([_pooled(features), proprio], axis=-1)

    def _apply(self, params: Params, *inputs: Any, method: str) -> Any:
        return cast(Any, self._model.apply({"params": params}, *inputs, method=method))


def _pooled(features: XVLAFeatures) -> Array:
    return features.vlm.astype(jnp.float32).mean(axis=1)
