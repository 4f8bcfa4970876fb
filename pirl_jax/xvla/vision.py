"""DaViT (arXiv 2204.03645), Florence-2's vision tower, and the projector that turns its output into tokens.

Follows ``transformers/models/florence2`` in evaluation mode (no drop-path), with images as NHWC.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import zeros

from pirl_jax.linear import Linear
from pirl_jax.typing import Array, Float
from pirl_jax.xvla.config import VisionConfig
from pirl_jax.xvla.layers import Activation, Conv, DepthwiseConv, Embedding, LayerNorm, attention


class ConvEmbed(nn.Module):
    """The overlapping patch embedding that opens a stage."""

    config: VisionConfig
    stage: int

    @nn.compact
    def __call__(self, x: Float[Array, "B h w in"]) -> Float[Array, "B h2 w2 C"]:
        """Return a map that the stage's stride has shrunk, of its width C."""
        cfg, i = self.config, self.stage
        norm = LayerNorm(name="norm")
        conv = Conv(
            cfg.embed_dim[i],
            cfg.patch_size[i],
            cfg.patch_stride[i],
            cfg.patch_padding[i],
            name="conv",
        )
        return conv(norm(x)) if cfg.patch_prenorm[i] else norm(conv(x))


class Mlp(nn.Module):
    """The feed-forward layer of a DaViT block."""

    config: VisionConfig
    stage: int

    @nn.compact
    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """Transform each token by itself; shapes stay."""
        width = int(self.config.embed_dim[self.stage] * self.config.mlp_ratio)
        hidden = Linear(width, name="fc1")(x)
        hidden = Activation(self.config.activation_function, name="activation_fn")(hidden)
        return Linear(self.config.embed_dim[self.stage], name="fc2")(hidden)


class WindowAttention(nn.Module):
    """Attention within windows of ``window_size²`` tokens, the map zero-padded to whole windows.

    Padding follows the norm, so a padded token's query, key and value equal the qkv bias. A window with n
    padded tokens therefore has n equal keys, which one key with log n added to its logit replaces exactly,
    and nothing is computed for padded queries. The map falls into at most four regions whose windows have the
    same real size: the interior, the right column, the bottom row and the corner.
    """

    config: VisionConfig
    stage: int

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Let every token attend to those of its window; shapes stay."""
        cfg = self.config
        _, h, w, channels = x.shape
        size, heads = cfg.window_size, cfg.num_heads[self.stage]
        qkv = Linear(3 * channels, cfg.qkv_bias, name="qkv")
        tokens = qkv(x).reshape(*x.shape[:-1], 3, heads, channels // heads)
        padded_token = qkv(jnp.zeros((channels,), x.dtype)).reshape(3, heads, channels // heads)
        rows = [
            jnp.concatenate(
                [
                    attend_windows(tokens[:, top : top + height, left : left + width], padded_token, size)
                    for left, width in regions(w, size)
                ],
                axis=2,
            )
            for top, height in regions(h, size)
        ]
        return Linear(channels, name="proj")(jnp.concatenate(rows, axis=1))


def regions(length: int, size: int) -> list[tuple[int, int]]:
    """Split an axis into (start, length) of its whole windows and of the incomplete one."""
    whole = length - length % size
    return [(start, count) for start, count in ((0, whole), (whole, length - whole)) if count]


def attend_windows(
    tokens: Float[Array, "B h w 3 heads d"], padded_token: Float[Array, "3 heads d"], size: int
) -> Float[Array, "B h w C"]:
    """Attend within windows that all have the same number of real tokens.

    Args:
        tokens: Queries, keys and values of the real tokens; h and w are below ``size`` or multiples of it.
        padded_token: Query, key and value of a padded token.
        size: The window's side.

    Returns:
        The attended values, heads merged.
    """
    batch, h, w, _, heads, dim = tokens.shape
    wh, ww = min(h, size), min(w, size)
    windows = tokens.reshape(batch, h // wh, wh, w // ww, ww, 3, heads, dim)
    windows = windows.transpose(5, 0, 1, 3, 2, 4, 6, 7).reshape(3, -1, wh * ww, heads, dim)
    q, k, v = windows
    num_padded, key_bias = size * size - wh * ww, None
    if num_padded:
        extra = jnp.broadcast_to(padded_token[:, None, None], (3, q.shape[0], 1, heads, dim))
        k = jnp.concatenate([k, extra[1]], axis=1)
        v = jnp.concatenate([v, extra[2]], axis=1)
        key_bias = np.append(np.zeros(wh * ww), math.log(num_padded))
    y = attention(q, k, v, key_bias).reshape(batch, h // wh, w // ww, wh, ww, heads * dim)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, h, w, heads * dim)


class ChannelAttention(nn.Module):
    """Attention between the channels of a group, over all tokens."""

    config: VisionConfig
    stage: int

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Let every channel attend to those of its group; shapes stay."""
        cfg = self.config
        batch, h, w, channels = x.shape
        groups = cfg.num_groups[self.stage]
        qkv = Linear(3 * channels, cfg.qkv_bias, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(batch, h * w, 3, groups, channels // groups), 2, 0)
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        logits = jnp.einsum("BNgc,BNgd->Bgcd", q, k, preferred_element_type=dtype) * (h * w) ** -0.5
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        y = jnp.einsum("Bgcd,BNgd->BNgc", weights, v).reshape(x.shape)
        return Linear(channels, name="proj")(y)


class HalfBlock(nn.Module):
    """Depthwise convolution, attention, depthwise convolution, feed-forward; each on a residual branch."""

    config: VisionConfig
    stage: int
    kind: str
    """``window_attn`` or ``channel_attn``: the attention, which also names its parameters."""

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Run the half block; shapes stay."""
        attend = {"window_attn": WindowAttention, "channel_attn": ChannelAttention}[self.kind]
        x = x + DepthwiseConv(name="conv1")(x)
        x = x + attend(self.config, self.stage, name=self.kind)(LayerNorm(name="norm1")(x))
        x = x + DepthwiseConv(name="conv2")(x)
        return x + Mlp(self.config, self.stage, name="ffn")(LayerNorm(name="norm2")(x))


class Block(nn.Module):
    """Window attention, then channel attention."""

    config: VisionConfig
    stage: int

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Run the block; shapes stay."""
        x = HalfBlock(self.config, self.stage, "window_attn", name="spatial_block")(x)
        return HalfBlock(self.config, self.stage, "channel_attn", name="channel_block")(x)


class VisionTower(nn.Module):
    """The stages of DaViT."""

    config: VisionConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 D"]:
        """Return the last stage's map of ImageNet-normalised images, D = ``embed_dim[-1]`` wide."""
        block = nn.remat(Block)  # as in the head (``transformer.py``)
        for stage in range(len(self.config.embed_dim)):
            x = ConvEmbed(self.config, stage, name=f"convs_{stage}")(x)
            for index in range(self.config.depths[stage]):
                x = block(self.config, stage, name=f"blocks_{stage}_{index}")(x)
        return x


class PositionEmbedding(nn.Module):
    """A learned embedding of each column and row, concatenated."""

    config: VisionConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "h w D"]:
        """Return the embedding of each place of a map, in its dtype; only the map's shape is read.

        Raises:
            ValueError: If h or w is more than ``max_position_embeddings``.
        """
        _, h, w, dim = x.shape
        positions = self.config.max_position_embeddings
        columns = Embedding(positions, dim - dim // 2, name="column_embeddings").first(w)
        rows = Embedding(positions, dim // 2, name="row_embeddings").first(h)
        grid = (jnp.tile(columns[None], (h, 1, 1)), jnp.tile(rows[:, None], (1, w, 1)))
        return jnp.concatenate(grid, axis=-1).astype(x.dtype)


class TemporalEmbedding(nn.Module):
    """The sinusoid of frame 0. A buffer in torch: in the tree so that checkpoints keep it, never trained."""

    config: VisionConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, " D"]:
        """Return the embedding that all places of a map share, in its dtype."""
        shape = (self.config.max_temporal_embeddings, x.shape[-1])
        table = self.param("pos_idx_to_embed", zeros, shape)
        return jax.lax.stop_gradient(table)[0].astype(x.dtype)


def sinusoids(positions: int, dim: int) -> Float[Array, "positions dim"]:
    """Sines in the even channels, cosines in the odd ones, wavelengths from 2π to 10000·2π."""
    half = dim // 2
    frequency = jnp.exp(jnp.arange(half, dtype=jnp.float32) * -(math.log(10000) / half))
    angle = jnp.arange(positions, dtype=jnp.float32)[:, None] * frequency
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(positions, dim)


class Projector(nn.Module):
    """Feature map → one averaged token and then every position's token, in the language model's width."""

    config: VisionConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B S W"]:
        """Return S = 1 + h·w tokens, ``projection_dim`` wide.

        Raises:
            ValueError: If h or w is more than ``max_position_embeddings``.
        """
        x = x + PositionEmbedding(self.config, name="image_position_embed")(x)
        x = x + TemporalEmbedding(self.config, name="visual_temporal_embed")(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)
        x = Linear(self.config.projection_dim, use_bias=False, name="image_projection")(x)
        return LayerNorm(name="image_proj_norm")(x)
