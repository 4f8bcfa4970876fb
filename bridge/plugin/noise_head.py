"""The learned standard deviation in torch: ``pirl_jax.likelihood.noise_head``, fed by pushes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from torch import Tensor, nn

from pirl_jax.recipe import NoiseConfig


class NoiseHead(nn.Module):
    """Logarithm of the factor on the noise of each action channel, between those of ``std_range``.

    Args:
        width: Of the summary of an observation.
        dim_action: Action channels as the model sees them.
        noise: ``std_range`` and ``head_hidden_dims``.
    """

    def __init__(self, width: int, dim_action: int, noise: NoiseConfig) -> None:
        super().__init__()
        low, high = (math.log(factor) for factor in noise.std_range)
        self.middle, self.half_range = 0.5 * (low + high), 0.5 * (high - low)
        widths = (width + 1, *noise.head_hidden_dims)
        for index, shape in enumerate(pairwise(widths)):
            self.add_module(f"hidden_{index}", nn.Linear(*shape))
        self.bound = nn.Linear(widths[-1], dim_action)
        nn.init.zeros_(self.bound.weight)
        nn.init.zeros_(self.bound.bias)

    @classmethod
    def for_policy(cls, policy: XVLAPolicy, noise: NoiseConfig) -> NoiseHead:
        """Return the head for a policy's sizes, on its device."""
        config: Any = policy.config
        model: Any = policy.model
        width = config.get_florence_config().vision_config.projection_dim + model.dim_proprio
        return cls(width, model.dim_action, noise).to(config.device)

    def forward(self, summary: Tensor, t: Tensor) -> Tensor:
        """Return [B, A] from the summary [B, W] and the time of a step's input [B]."""
        x = torch.cat([summary, t[:, None]], dim=-1)
        for name, layer in self.named_children():
            if name != "bound":
                x = nn.functional.silu(layer(x))
        return self.middle + self.half_range * torch.tanh(self.bound(x))


def summarize(features: Mapping[str, Tensor], proprio: Tensor) -> Tensor:
    """Return the mean VLM token and the proprioception side by side, [B, W]."""
    return torch.cat([features["vlm_features"].mean(1), proprio], dim=-1)
