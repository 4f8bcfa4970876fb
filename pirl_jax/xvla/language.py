"""The encoder of BART (arXiv 1910.13461), post-norm, as in ``transformers/models/bart`` in evaluation mode."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
from jax.nn.initializers import Initializer, normal

from pirl_jax.typing import Array, Float, Int
from pirl_jax.xvla.config import TextConfig
from pirl_jax.xvla.layers import Activation, Embedding, LayerNorm, Linear, attention

POSITION_OFFSET = 2
"""BART's position table begins with two unused rows."""


class SelfAttention(nn.Module):
    """Multi-head self-attention over all tokens, padding included: X-VLA masks nothing."""

    config: TextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        heads, init = self.config.encoder_attention_heads, normal(self.config.init_std)
        q, k, v = (
            Linear(x.shape[-1], kernel_init=init, name=name)(x).reshape(*x.shape[:-1], heads, -1)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        return Linear(x.shape[-1], kernel_init=init, name="out_proj")(attention(q, k, v))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each followed by its residual sum and norm."""

    config: TextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        cfg, init = self.config, normal(self.config.init_std)
        x = LayerNorm(name="self_attn_layer_norm")(x + SelfAttention(cfg, name="self_attn")(x))
        hidden = Linear(cfg.encoder_ffn_dim, kernel_init=init, name="fc1")(x)
        hidden = Activation(cfg.activation_function, name="activation_fn")(hidden)
        return LayerNorm(name="final_layer_norm")(x + Linear(cfg.d_model, kernel_init=init, name="fc2")(hidden))


class Encoder(nn.Module):
    """Adds learned positions to embedded tokens and runs the layers."""

    config: TextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        cfg = self.config
        rows = cfg.max_position_embeddings + POSITION_OFFSET
        positions = Embedding(rows, cfg.d_model, normal(cfg.init_std), name="embed_positions")
        if not cfg.tie_word_embeddings:
            # Unread (X-VLA embeds with `shared`), but a tensor of the checkpoint.
            Embedding(cfg.vocab_size, cfg.d_model, _token_init(cfg), name="embed_tokens").first(0)
        x = x + positions.first(x.shape[1], offset=POSITION_OFFSET).astype(x.dtype)
        x = LayerNorm(name="layernorm_embedding")(x)
        for index in range(cfg.encoder_layers):
            x = EncoderLayer(cfg, name=f"layers_{index}")(x)
        return x


class LanguageModel(nn.Module):
    """The token table and the encoder of ``BartModel``."""

    config: TextConfig

    def setup(self) -> None:
        self.shared = Embedding(self.config.vocab_size, self.config.d_model, _token_init(self.config))
        self.encoder = Encoder(self.config)

    def embed(self, tokens: Int[Array, "B N"]) -> Float[Array, "B N D"]:
        """Embed tokens, times √d_model with ``scale_embedding``, in the table's dtype."""
        embedded = self.shared(tokens)
        return embedded * math.sqrt(self.config.d_model) if self.config.scale_embedding else embedded

    def __call__(self, embedded: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        return self.encoder(embedded)


def _token_init(config: TextConfig) -> Initializer:
    """Normal, with the padding token's row zero."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = float) -> jax.Array:
        table = normal(config.init_std)(key, shape, dtype)
        return table if config.pad_token_id is None else table.at[config.pad_token_id].set(0)

    return init
