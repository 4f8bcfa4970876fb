"""The encoder of BART (arXiv 1910.13461), as ``transformers/models/bart`` has it in evaluation mode."""

from __future__ import annotations

import math

import flax.linen as nn

from pirl_jax.linear import Linear
from pirl_jax.typing import Array, Float, Int
from pirl_jax.xvla.config import TextConfig
from pirl_jax.xvla.layers import Activation, Embedding, LayerNorm, attention

POSITION_OFFSET = 2
"""BART's position table begins with two unused rows."""


class SelfAttention(nn.Module):
    """Multi-head self-attention over all tokens, padding included: X-VLA masks nothing."""

    config: TextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """Let every token attend to all S of them; shapes stay."""
        heads = self.config.encoder_attention_heads
        q, k, v = (
            Linear(x.shape[-1], name=name)(x).reshape(*x.shape[:-1], heads, -1)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        return Linear(x.shape[-1], name="out_proj")(attention(q, k, v))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each followed by its residual sum and norm."""

    config: TextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """Run the layer; shapes stay."""
        cfg = self.config
        x = LayerNorm(name="self_attn_layer_norm")(x + SelfAttention(cfg, name="self_attn")(x))
        hidden = Linear(cfg.encoder_ffn_dim, name="fc1")(x)
        hidden = Activation(cfg.activation_function, name="activation_fn")(hidden)
        return LayerNorm(name="final_layer_norm")(x + Linear(cfg.d_model, name="fc2")(hidden))


class Encoder(nn.Module):
    """Adds learned positions to embedded tokens and runs the layers."""

    config: TextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """Run the encoder; shapes stay.

        Args:
            x: Embedded tokens, without positions.

        Raises:
            ValueError: If S is more than ``max_position_embeddings``.
        """
        cfg = self.config
        rows = cfg.max_position_embeddings + POSITION_OFFSET
        positions = Embedding(rows, cfg.d_model, name="embed_positions")
        if not cfg.tie_word_embeddings:
            # Unread (X-VLA embeds with `shared`), but a tensor of the checkpoint.
            Embedding(cfg.vocab_size, cfg.d_model, name="embed_tokens").first(0)
        x = x + positions.first(x.shape[1], offset=POSITION_OFFSET).astype(x.dtype)
        x = LayerNorm(name="layernorm_embedding")(x)
        layer = nn.remat(EncoderLayer)  # as in the head (``transformer.py``)
        for index in range(cfg.encoder_layers):
            x = layer(cfg, name=f"layers_{index}")(x)
        return x


class LanguageModel(nn.Module):
    """The token table and the encoder of ``BartModel``."""

    config: TextConfig

    def setup(self) -> None:
        self.shared = Embedding(self.config.vocab_size, self.config.d_model)
        self.encoder = Encoder(self.config)

    def embed(self, tokens: Int[Array, "B N"]) -> Float[Array, "B N D"]:
        """Embed tokens, times √d_model with ``scale_embedding``, in the table's dtype."""
        embedded = self.shared(tokens)
        return embedded * math.sqrt(self.config.d_model) if self.config.scale_embedding else embedded

    def __call__(self, embedded: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """Encode embedded tokens; shapes stay.

        Raises:
            ValueError: If S is more than ``max_position_embeddings``.
        """
        return self.encoder(embedded)
