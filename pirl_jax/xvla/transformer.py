"""X-VLA's action head (arXiv 2510.10274): a transformer over action and VLM tokens and soft prompts."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros

from pirl_jax.linear import Linear
from pirl_jax.typing import Array, Float, Int
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.layers import DomainLinear, Embedding, LayerNorm, attention

MAX_PERIOD = 100
"""Longest period of the time embedding."""


class Attention(nn.Module):
    """Multi-head self-attention with a fused qkv projection."""

    num_heads: int

    queries: int | None = None
    """Tokens that attend, the first ones; None: all."""

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B Q D"]:
        """Let tokens attend to all S of them."""
        dim = x.shape[-1]
        project = Linear(3 * dim, name="qkv")
        if self.queries is None:
            qkv = project(x)
            q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:-1], 3, self.num_heads, -1), -3, 0)
        else:
            q = project(x[:, : self.queries], part=slice(0, dim))
            k, v = jnp.split(project(x, part=slice(dim, 3 * dim)), 2, axis=-1)
            q, k, v = (y.reshape(*y.shape[:-1], self.num_heads, -1) for y in (q, k, v))
        return Linear(dim, name="proj")(attention(q, k, v))


class Mlp(nn.Module):
    """Two linear layers around a tanh-approximated GELU."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """Transform each token by itself; shapes stay."""
        hidden = jax.nn.gelu(Linear(self.hidden, name="fc1")(x), approximate=True)
        return Linear(x.shape[-1], name="fc2")(hidden)


class Block(nn.Module):
    """A pre-norm transformer block."""

    num_heads: int
    mlp_ratio: float
    queries: int | None = None
    """Tokens that come out, the first ones; None: all."""

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B Q D"]:
        """Run the block."""
        attended = Attention(self.num_heads, self.queries, name="attn")(LayerNorm(name="norm1")(x))
        x = x[:, : self.queries] + attended
        return x + Mlp(int(x.shape[-1] * self.mlp_ratio), name="mlp")(LayerNorm(name="norm2")(x))


class SoftPromptedTransformer(nn.Module):
    """Predicts the clean action chunk from a noisy one, given the VLM's features and the embodiment."""

    config: XVLAConfig

    @nn.compact
    def __call__(
        self,
        vlm_features: Float[Array, "B S D"],
        aux_features: Float[Array, "B S2 D"],
        x_t: Float[Array, "B H A"],
        t: Float[Array, " B"],
        proprio: Float[Array, "B P"],
        domain_id: Int[Array, " B"],
        hidden: bool = False,
    ) -> Float[Array, "B H A"] | Float[Array, "B H D"]:
        """Run the head.

        Args:
            vlm_features: The BART encoder's output.
            aux_features: Image tokens of the views but the first; S2 may be 0.
            x_t: The noisy chunk, preprocessed by the action space.
            t: Time, 1 for pure noise and 0 for the clean action.
            proprio: Proprioception, preprocessed by the action space; P may be 0.
            domain_id: The embodiment.
            hidden: Return the action tokens' last hidden states, which are decoded otherwise.

        Raises:
            ValueError: If the sequence is longer than ``max_len_seq``.
        """
        cfg = self.config
        batch, horizon, dim_action = x_t.shape
        condition = jnp.concatenate([proprio, timestep_embedding(t, cfg.dim_time)], axis=-1)
        condition = jnp.broadcast_to(condition[:, None], (batch, horizon, condition.shape[-1]))
        action_encoder = DomainLinear(cfg.hidden_size, cfg.num_domains, name="action_encoder")
        x = jnp.concatenate(
            [
                action_encoder(jnp.concatenate([x_t, condition], axis=-1), domain_id),
                self._project("vlm_proj", vlm_features, domain_id),
                self._project("aux_visual_proj", aux_features, domain_id),
            ],
            axis=1,
        )

        length = x.shape[1]
        if length > cfg.max_len_seq:
            raise ValueError(
                f"the head's sequence has {length} tokens, more than max_len_seq={cfg.max_len_seq}. "
                "Use smaller images, fewer views, fewer tokens or a smaller chunk_size, or a network with a "
                "larger policy.max_len_seq."
            )
        pos_emb = self.param("pos_emb", zeros, (1, cfg.max_len_seq, cfg.hidden_size))
        x = x + pos_emb[:, :length].astype(x.dtype)
        if cfg.len_soft_prompts > 0:
            hub = Embedding(cfg.num_domains, cfg.len_soft_prompts * cfg.hidden_size, name="soft_prompt_hub")
            prompts = hub(domain_id).reshape(batch, cfg.len_soft_prompts, cfg.hidden_size)
            x = jnp.concatenate([x, prompts.astype(x.dtype)], axis=1)

        # A backward pass keeps each block's input and computes the rest of it again.
        block = nn.remat(Block)
        for index in range(cfg.depth):
            # Nothing looks at the last block's other tokens.
            queries = horizon if index == cfg.depth - 1 else None
            x = block(cfg.num_heads, cfg.mlp_ratio, queries, name=f"blocks_{index}")(x)
        x = LayerNorm(name="norm")(x[:, :horizon])
        if hidden:
            return x
        return DomainLinear(dim_action, cfg.num_domains, name="action_decoder")(x, domain_id)

    def _project(
        self, name: str, x: Float[Array, "B S D"], domain_id: Int[Array, " B"]
    ) -> Float[Array, "B S W"]:
        cfg = self.config
        if cfg.use_hetero_proj:
            return DomainLinear(cfg.hidden_size, cfg.num_domains, name=name)(x, domain_id)
        return Linear(cfg.hidden_size, name=name)(x)


def timestep_embedding(t: Float[Array, " B"], dim: int) -> Float[Array, "B dim"]:
    """Embed time as cosines, then sines, then a zero where ``dim`` is odd."""
    half = dim // 2
    frequency = jnp.exp(-math.log(MAX_PERIOD) * jnp.arange(half, dtype=t.dtype) / max(half, 1))
    angle = t[:, None] * frequency
    embedding = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, dim - 2 * half)))
