"""Draw an action chunk from X-VLA's anchored chain, with its log-density, in torch.

The chain is that of ``pirl_jax.likelihood.modes``. With zero noise it is LeRobot's
``XVLAModel.generate_actions`` bit for bit: the same operations in one order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lerobot.policies.xvla.modeling_xvla import XVLAModel, XVLAPolicy
from torch import Tensor

from bridge.plugin.noise_head import NoiseHead, summarize
from pirl_jax.likelihood import gripper, modes
from pirl_jax.recipe import NoiseConfig
from pirl_jax.xvla.channels import ChannelGroups, xvla_gripper_logits, xvla_groups


@dataclass(frozen=True)
class Sample:
    """One draw from the chain, in the model's action channels (before ``postprocess``).

    Attributes:
        latents: States of the chain, ``modes.num_latents`` of them, [L, B, H, A]; without noise those of
            the first step that the mode may noise.
        action: The chain's end, [B, H, A].
        log_prob: Log-density of each chunk step, summed over noised steps, scored channels and grippers,
            [B, H]; zero without noise.
    """

    latents: Tensor
    action: Tensor
    log_prob: Tensor


def channel_groups(model: XVLAModel) -> ChannelGroups:
    """Return the channels that carry noise, by group.

    Raises:
        ValueError: An action space that is not in the table.
    """
    space: Any = model.action_space
    return xvla_groups(space.name, getattr(space, "real_dim", 0))


@torch.no_grad()
def sample(
    policy: XVLAPolicy,
    batch: dict[str, Tensor],
    config: NoiseConfig,
    step: int | None,
    generator: torch.Generator | None = None,
    head: NoiseHead | None = None,
) -> Sample:
    """Run the denoising chain once.

    The head runs in float32 whatever the encoder's dtype: rounding to bfloat16 alone moves a log-ratio by
    more than a policy update does. Call :func:`use_float32_head` once before.

    Args:
        policy: In eval mode (LeRobot's blocks have dropout in train mode).
        batch: Preprocessed observations with a batch dimension.
        config: Where the noise is, and its level.
        step: The (first) noised step k (t = k/K → (k-1)/K); None for the deterministic chain.
        generator: CPU generator of the noise; None uses torch's global one.
        head: The learned standard deviation, for a mode that has one.
    """
    model: Any = policy.model
    policy_config: Any = policy.config
    inputs = policy._build_model_inputs(batch)
    features = model.forward_vlm(
        inputs["input_ids"], inputs["image_input"].to(model._get_target_dtype()), inputs["image_mask"]
    )
    features = {name: feature.float() for name, feature in features.items()}
    proprio = inputs["proprio"].float()
    shape = (len(proprio), model.chunk_size, model.dim_action)

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator).to(proprio.device)

    scale = modes.channel_scale(config, channel_groups(model), model.dim_action)
    dims = np.flatnonzero(scale).tolist()
    stds = torch.from_numpy(scale[dims]).to(proprio)
    factor = torch.from_numpy(modes.correlation_factor(config, model.chunk_size)).to(proprio)
    grippers = gripper.sampled_channels(config, xvla_gripper_logits(model.action_space.name))
    mode, K = modes.MODES[config.mode], policy_config.num_denoising_steps
    x1 = draw()
    states = [x1]  # at times 1 … 0: entry K - k is step k's input
    log_prob = torch.zeros(shape[:2], device=proprio.device)
    for transition in modes.transitions(config, K, step):
        x_t = states[-1]
        t = torch.full((shape[0],), transition.t, device=proprio.device)
        proprio_m, x_t_m = model.action_space.preprocess(proprio, x_t)
        clean = model.transformer(
            domain_id=inputs["domain_id"], action_with_noise=x_t_m, proprio=proprio_m, t=t, **features
        )
        x_s = x1 * transition.noise_coef + clean * transition.action_coef
        if transition.std > 0:
            mean, x_s = x_s, x_s.clone()
            std = transition.std * stds
            if head is not None:
                std = std * head(summarize(features, proprio), t)[:, None, dims].exp()
            x_s[..., dims] += std * (factor @ draw()[..., dims])
            log_prob = log_prob + _log_normal(x_s[..., dims] - mean[..., dims], std, factor)
            if grippers:
                x_s[..., grippers], gripper_log_prob = _draw_grippers(mean[..., grippers], config, generator)
                log_prob = log_prob + gripper_log_prob
        states.append(x_s)
    first = K - (step or mode.first_steps(K)[0])
    path = states[first : first + mode.num_noised(K) + 1]
    latents = path if mode.every_step else [x1, *path]
    return Sample(latents=torch.stack(latents), action=states[-1], log_prob=log_prob)


def use_float32_head(policy: XVLAPolicy) -> None:
    """Keep the action head in float32; the encoder keeps ``policy.dtype``."""
    policy.model.transformer.float()


def _draw_grippers(
    logits: Tensor, config: NoiseConfig, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw the executed logits [B, H, G] and their log-probability [B, H], in float64 inside."""
    batch, steps, grippers = logits.shape
    uniforms = torch.rand((batch, grippers, steps + 2), dtype=torch.float64, generator=generator)
    exact = logits.double().cpu().numpy()
    outcome = gripper.draw(exact, config, uniforms.numpy())
    log_prob = gripper.log_prob(exact, outcome, config)
    return torch.from_numpy(outcome).to(logits), torch.from_numpy(log_prob).to(logits)


def _log_normal(residual: Tensor, stds: Tensor, factor: Tensor) -> Tensor:
    """log p(step | steps before it) of residuals [B, H, C] ~ stds·L·ξ, L = ``factor``; over channels.

    ``stds`` is [C], or [B, 1, C] where it depends on the observation.
    """
    z = torch.linalg.solve_triangular(factor, residual / stds, upper=False)
    constant = stds.shape[-1] * (factor.diagonal().log() + 0.5 * math.log(2 * math.pi))
    normalizer = stds.log().sum(-1) + constant
    return -0.5 * (z * z).sum(-1) - normalizer
