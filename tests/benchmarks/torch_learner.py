"""A torch learner to be measured against: the maths of ours, written as one would for speed in torch.

LeRobot's own modules, fused AdamW, features of the frozen encoder kept, one head call a minibatch, metrics
without a gradient, nothing read back before an update is over. It knows ``noise.mode=terminal``, PPO with GAE
and nothing else of the recipe. No JAX here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from lerobot.policies.common.vla_utils import resize_with_pad
from torch import Tensor, nn
from torch.nn import functional

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ADVANTAGE_MIN_STD = 1e-3
MAX_LOG_RATIO = 20.0


class Views(NamedTuple):
    """Observations before the encoder, for a learner that does not keep what it makes of them."""

    images: Tensor
    """uint8 [B, V, C, h, w]."""
    tokens: Tensor


class TorchEpisode(NamedTuple):
    """An episode of T chunks, T + 1 observations."""

    vlm: Tensor
    aux: Tensor
    proprio: Tensor
    domain_id: Tensor
    latents: Tensor
    step_mask: Tensor
    old_log_prob: Tensor
    reward: Tensor
    terminated: bool
    views: Views | None = None


class Rows(NamedTuple):
    """The decision points of an update, on the device."""

    vlm: Tensor
    aux: Tensor
    proprio: Tensor
    domain_id: Tensor
    latents: Tensor
    step_mask: Tensor
    old_log_prob: Tensor
    advantages: Tensor
    value_targets: Tensor
    old_values: Tensor
    critic_input: Tensor
    views: Views | None = None


class Numbers(NamedTuple):
    """What it takes of the recipe."""

    num_epochs: int
    minibatch_size: int
    lr: float
    critic_lr: float
    betas: tuple[float, float]
    eps: float
    grad_clip_norm: float
    clip_ratio: float
    value_clip: float
    huber_delta: float
    gamma: float
    gae_lambda: float
    sigma: float
    channels: tuple[int, ...]
    """That carry noise."""
    num_denoising_steps: int


class Critic(nn.Module):
    """V(s): an MLP on the mean of the encoder's tokens and the proprioception."""

    def __init__(self, width: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        sizes = [width, *hidden_dims]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.value = nn.Linear(sizes[-1], 1)

    def forward(self, inputs: Tensor, proprio: Tensor) -> Tensor:
        """Estimate the value of observations [B]."""
        x = torch.cat([inputs, proprio], dim=-1)
        for layer in self.hidden:
            x = functional.gelu(layer(x), approximate="tanh")
        return self.value(x)[:, 0]


class TorchLearner:
    """Learns from episodes, an update at a time.

    Args:
        model: LeRobot's ``XVLAModel``, in evaluation mode; its head is trained, its encoder frozen.
        critic: the value function.
        numbers: of the recipe.
        compiled: through ``torch.compile``.
        autocast: dtype of the head's products; None: that of the parameters.
    """

    def __init__(
        self,
        model: Any,
        critic: Critic,
        numbers: Numbers,
        compiled: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model, self.critic, self.numbers, self.autocast = model, critic, numbers, autocast
        self.device = next(critic.parameters()).device
        rest: dict[str, Any] = {
            "betas": numbers.betas,
            "eps": numbers.eps,
            "weight_decay": 0.0,
            "fused": True,
        }
        self.head = list(model.transformer.parameters())
        self.optimizer = torch.optim.AdamW(self.head, lr=numbers.lr, **rest)
        self.critic_optimizer = torch.optim.AdamW(critic.parameters(), lr=numbers.critic_lr, **rest)
        make = torch.compile if compiled else lambda function: function
        self.policy_loss: Any = make(self._policy_loss)
        self.value_loss: Any = make(self._value_loss)
        self._encoder: Any = make(encode)
        self._chunks: Any = make(self._predict)

    def encode(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Encode frames as they come."""
        return self._encoder(self.model, images, tokens)

    def log_prob(self, rows: Rows) -> Tensor:
        """Return the log-density of each chunk step [B, H]: x_0 ~ N(f(x_{1/K}, 1/K), σ²)."""
        numbers = self.numbers
        x_t, action = rows.latents[:, 1], rows.latents[:, 2]
        t = torch.full((len(action),), 1 / numbers.num_denoising_steps, device=action.device)
        mean = self._predict(rows.vlm, rows.aux, x_t, t, rows.proprio, rows.domain_id)
        channels = list(numbers.channels)
        z = (action[..., channels] - mean[..., channels]) / numbers.sigma
        constant = math.log(numbers.sigma) + 0.5 * math.log(2 * math.pi)
        return -0.5 * z.square().sum(-1) - len(channels) * constant

    def batch(self, episodes: Sequence[TorchEpisode]) -> Rows:
        """Lay episodes out as decision points with advantages."""

        def acted(name: str) -> Tensor:
            return torch.cat([getattr(episode, name) for episode in episodes]).to(self.device)

        def observed(name: str) -> Tensor:
            return torch.cat([getattr(episode, name)[:-1] for episode in episodes]).to(self.device)

        vlm, proprio = observed("vlm"), observed("proprio")
        last = torch.stack([episode.vlm[-1] for episode in episodes]).to(self.device)
        last_proprio = torch.stack([episode.proprio[-1] for episode in episodes]).to(self.device)
        with torch.no_grad():
            pooled = vlm.float().mean(1)
            values = self.critic(pooled, proprio)
            final = self.critic(last.float().mean(1), last_proprio)
        advantages, targets = self.estimate(episodes, values, final)
        views = None
        if episodes[0].views is not None:
            both = zip(*(episode.views for episode in episodes if episode.views))
            views = Views(*(torch.cat([x[:-1] for x in each]).to(self.device) for each in both))
        return Rows(
            vlm=vlm,
            aux=observed("aux"),
            proprio=proprio,
            domain_id=observed("domain_id"),
            latents=acted("latents"),
            step_mask=acted("step_mask"),
            old_log_prob=acted("old_log_prob"),
            advantages=advantages,
            value_targets=targets,
            old_values=values,
            critic_input=pooled,
            views=views,
        )

    def estimate(
        self, episodes: Sequence[TorchEpisode], values: Tensor, final: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return normalised GAE and value targets [B], from the values of points and of last observations."""
        numbers = self.numbers
        numpy_values, last = values.cpu().numpy(), final.cpu().numpy()
        advantages = np.zeros(len(values), np.float32)
        start = 0
        for index, episode in enumerate(episodes):
            following = 0.0 if episode.terminated else float(last[index])
            running = 0.0
            for t in reversed(range(len(episode.reward))):
                value = float(numpy_values[start + t])
                delta = float(episode.reward[t]) + numbers.gamma * following - value
                running = delta + numbers.gamma * numbers.gae_lambda * running
                advantages[start + t], following = running, value
            start += len(episode.reward)
        targets = advantages + numpy_values
        spread = max(advantages.std(), ADVANTAGE_MIN_STD)
        normalized = (advantages - advantages.mean()) / spread
        return torch.from_numpy(normalized).to(self.device), torch.from_numpy(targets).to(self.device)

    def update(self, rows: Rows, orders: np.ndarray) -> dict[str, float]:
        """Take all minibatch steps of an update; return the means of what they were like.

        Args:
            rows: decision points. With ``views`` each minibatch is encoded anew.
            orders: of the points, one an epoch [epochs, B].
        """
        count, size = len(rows.advantages), self.numbers.minibatch_size
        minibatches = -(-count // size)
        reports = []
        for order in torch.from_numpy(np.ascontiguousarray(orders)).long().to(self.device):
            for i in range(minibatches):
                start, stop = (j * count // minibatches for j in (i, i + 1))
                reports.append(self.step(_taken(rows, order[start:stop])))
        means = torch.stack([torch.stack(list(report.values())) for report in reports]).mean(0).tolist()
        return dict(zip(reports[0], means))

    def step(self, rows: Rows) -> dict[str, Tensor]:
        """Take a step of policy and critic on a minibatch."""
        if rows.views is not None:
            with torch.no_grad():
                vlm, aux = self.encode(*rows.views)
            rows = rows._replace(vlm=vlm.float(), aux=aux.float(), views=None)
        loss, metrics = self.policy_loss(rows)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.head, self.numbers.grad_clip_norm)
        self.optimizer.step()
        value_loss = self.value_loss(rows)
        self.critic_optimizer.zero_grad(set_to_none=True)
        value_loss.backward()
        critic_norm = nn.utils.clip_grad_norm_(self.critic.parameters(), self.numbers.grad_clip_norm)
        self.critic_optimizer.step()
        return {
            "policy_loss": loss.detach(),
            "grad_norm": norm,
            "value_loss": value_loss.detach(),
            "critic_grad_norm": critic_norm,
            **metrics,
        }

    @torch.no_grad()
    def sample(self, vlm: Tensor, aux: Tensor, noise: Tensor, proprio: Tensor, domain_id: Tensor) -> Tensor:
        """Denoise as LeRobot's ``generate_actions``, from kept features and given noise."""
        action, K = torch.zeros_like(noise), self.numbers.num_denoising_steps
        for i in range(K, 0, -1):
            t = torch.full((len(noise),), i / K, device=noise.device)
            x_t = noise * t.view(-1, 1, 1) + action * (1 - t).view(-1, 1, 1)
            action = self._chunks(vlm, aux, x_t, t, proprio, domain_id)
        return action

    def _policy_loss(self, rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
        epsilon = self.numbers.clip_ratio
        difference = torch.where(rows.step_mask, self.log_prob(rows) - rows.old_log_prob, 0.0)
        log_ratio = difference.sum(-1).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
        loss = -torch.minimum(ratio * rows.advantages, clipped * rows.advantages).mean()
        with torch.no_grad():
            up, down = rows.advantages > 0, rows.advantages < 0
            held_back = (up & (ratio > 1 + epsilon)) | (down & (ratio < 1 - epsilon))
            metrics = {
                "approx_kl": (torch.expm1(log_ratio) - log_ratio).mean(),
                "clip_fraction": held_back.float().mean(),
                "ratio_mean": ratio.mean(),
            }
        return loss, metrics

    def _value_loss(self, rows: Rows) -> Tensor:
        numbers = self.numbers
        values = self.critic(rows.critic_input, rows.proprio)
        near = rows.old_values + (values - rows.old_values).clamp(-numbers.value_clip, numbers.value_clip)
        errors = (
            functional.huber_loss(each, rows.value_targets, reduction="none", delta=numbers.huber_delta)
            for each in (values, near)
        )
        return torch.maximum(*errors).mean()

    def _predict(
        self, vlm: Tensor, aux: Tensor, x_t: Tensor, t: Tensor, proprio: Tensor, domain_id: Tensor
    ) -> Tensor:
        proprio, x_t = self.model.action_space.preprocess(proprio, x_t)
        enabled = self.autocast is not None
        with torch.autocast(x_t.device.type, dtype=self.autocast or torch.bfloat16, enabled=enabled):
            return self.model.transformer(domain_id, vlm, aux, x_t, proprio, t).float()


def encode(model: Any, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Encode frames as they come, with LeRobot's own resizing, padding of views and encoder."""
    config, total = model.config, model.config.num_image_views or images.shape[1]
    mean, std = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    views = ((images.float() / 255 - mean) / std).unbind(1)
    if config.resize_imgs_with_padding is not None:
        size = config.resize_imgs_with_padding
        views = [resize_with_pad(view, *size, pad_value=0.0) for view in views]
    pixels = torch.stack(list(views), dim=1)
    present = torch.ones(pixels.shape[:2], dtype=torch.bool, device=images.device)
    missing = total - pixels.shape[1]
    if missing > 0:
        pixels = functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, missing))
        present = functional.pad(present, (0, missing))
    features = model.forward_vlm(tokens, pixels.to(model._get_target_dtype()), present)
    return features["vlm_features"], features["aux_visual_inputs"]


def _taken(rows: Rows, index: Tensor) -> Rows:
    """Return the rows of these numbers; of observations either the features or the views."""
    fields = rows._asdict()
    views = fields.pop("views")
    if views is not None:
        fields |= {"vlm": rows.vlm[:0], "aux": rows.aux[:0]}
        taken = {name: x if name in ("vlm", "aux") else x[index] for name, x in fields.items()}
        return Rows(**taken, views=Views(*(x[index] for x in views)))
    return Rows(**{name: x[index] for name, x in fields.items()})
