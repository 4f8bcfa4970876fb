"""The one table between torch keys and flax paths; every direction is derived from it.

A flax path is its torch key with module lists folded into names:
``model.transformer.blocks.3.attn.qkv.weight`` is ``("transformer", "blocks_3", "attn", "qkv", "weight")``.
Tensors cross over unchanged, since the flax layers keep torch's layouts. The older, vendored Florence-2
layout of the published checkpoints is a second column; one of its tensors is transposed (``TRANSPOSED``) and
one is dropped. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

PREFIX = "model."
"""What LeRobot's policy puts before every key."""

_WORDS = {
    "i": r"\d+",
    "j": r"\d+",
    "wb": "weight|bias",
    "half": "spatial_block|channel_block",
    "attn": "window_attn|channel_attn",
    "conv": "conv1|conv2",
    "norm": "norm1|norm2",
    "fc": "fc1|fc2",
    "axis": "row|column",
    "qkvo": "q_proj|k_proj|v_proj|out_proj",
    "linear": "qkv|proj",
    "act": "weight|alpha_p|alpha_n|beta|eps",
    "table": r"fc\.weight|bias\.weight",
    "hetero": "vlm_proj|aux_visual_proj",
    "coder": "action_encoder|action_decoder",
}


@dataclass(frozen=True)
class Row:
    """One family of tensors; ``{word}`` stands for any spelling in ``_WORDS``."""

    native: str
    vendored: str | None = None
    """The older layout's spelling, where it differs."""

    @property
    def flax(self) -> str:
        """The path, joined by dots."""
        return re.sub(r"\.(\{[ij]\})", r"_\1", self.native)

    @cached_property
    def native_pattern(self) -> re.Pattern[str]:
        """Matches native torch keys without the prefix."""
        return _compile(self.native)

    @cached_property
    def flax_pattern(self) -> re.Pattern[str]:
        """Matches dotted flax paths."""
        return _compile(self.flax)

    @cached_property
    def vendored_pattern(self) -> re.Pattern[str] | None:
        """Matches vendored torch keys without the prefix."""
        return _compile(self.vendored) if self.vendored else None


def _compile(template: str) -> re.Pattern[str]:
    pattern = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(re.sub(r"\{(\w+)\}", lambda m: f"(?P<{m[1]}>{_WORDS[m[1]]})", pattern))


_BLOCK = "vlm.vision_tower.blocks.{i}.{j}.{half}"
_LAYER = "encoder.layers.{i}"
_HEAD = "transformer.blocks.{i}"


def _language(name: str) -> Row:
    return Row(f"vlm.language_model.{name}", f"vlm.language_model.model.{name}")


TABLE: tuple[Row, ...] = (
    Row("vlm.vision_tower.convs.{i}.conv.{wb}", "vlm.vision_tower.convs.{i}.proj.{wb}"),
    Row("vlm.vision_tower.convs.{i}.norm.{wb}"),
    Row(f"{_BLOCK}.{{conv}}.{{wb}}", f"{_BLOCK}.{{conv}}.fn.dw.{{wb}}"),
    Row(f"{_BLOCK}.norm1.{{wb}}", f"{_BLOCK}.{{attn}}.norm.{{wb}}"),
    Row(f"{_BLOCK}.{{attn}}.{{linear}}.{{wb}}", f"{_BLOCK}.{{attn}}.fn.{{linear}}.{{wb}}"),
    Row(f"{_BLOCK}.norm2.{{wb}}", f"{_BLOCK}.ffn.norm.{{wb}}"),
    Row(f"{_BLOCK}.ffn.{{fc}}.{{wb}}", f"{_BLOCK}.ffn.fn.net.{{fc}}.{{wb}}"),
    Row(f"{_BLOCK}.ffn.activation_fn.{{act}}"),
    Row("vlm.multi_modal_projector.image_projection.weight", "vlm.image_projection"),
    Row("vlm.multi_modal_projector.image_proj_norm.{wb}", "vlm.image_proj_norm.{wb}"),
    Row(
        "vlm.multi_modal_projector.image_position_embed.{axis}_embeddings.weight",
        "vlm.image_pos_embed.{axis}_embeddings.weight",
    ),
    Row(
        "vlm.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed",
        "vlm.visual_temporal_embed.pos_idx_to_embed",
    ),
    _language("shared.weight"),
    _language("encoder.embed_tokens.weight"),
    _language("encoder.embed_positions.weight"),
    _language("encoder.layernorm_embedding.{wb}"),
    _language(f"{_LAYER}.self_attn.{{qkvo}}.{{wb}}"),
    _language(f"{_LAYER}.self_attn_layer_norm.{{wb}}"),
    _language(f"{_LAYER}.{{fc}}.{{wb}}"),
    _language(f"{_LAYER}.final_layer_norm.{{wb}}"),
    _language(f"{_LAYER}.activation_fn.{{act}}"),
    Row(f"{_HEAD}.{{norm}}.{{wb}}"),
    Row(f"{_HEAD}.attn.{{linear}}.{{wb}}"),
    Row(f"{_HEAD}.mlp.{{fc}}.{{wb}}"),
    Row("transformer.{hetero}.{wb}"),
    Row("transformer.{hetero}.{table}"),
    Row("transformer.{coder}.{table}"),
    Row("transformer.norm.{wb}"),
    Row("transformer.pos_emb"),
    Row("transformer.soft_prompt_hub.weight"),
)
"""Every tensor an X-VLA checkpoint can hold."""

TIED: dict[str, str] = {
    "model.vlm.language_model.encoder.embed_tokens.weight": "model.vlm.language_model.shared.weight",
}
"""Alias → the key it repeats. The parameter tree holds the alias only where the config unties it
(``text_config.tie_word_embeddings=false``); otherwise a checkpoint may carry either name or both."""

TRANSPOSED: frozenset[str] = frozenset({"model.vlm.image_projection"})
"""Vendored tensors that the native layout holds transposed."""

DROPPED: frozenset[str] = frozenset({"model.vlm.language_model.final_logits_bias"})
"""Vendored tensors that the native layout does not have."""


@cache
def to_flax_path(torch_key: str) -> tuple[str, ...]:
    """Return the flax path of a native torch key.

    Args:
        torch_key: A key of ``XVLAPolicy.state_dict()``, e.g. ``model.transformer.pos_emb``.

    Raises:
        KeyError: If X-VLA has no such tensor.
    """
    if torch_key.startswith(PREFIX):
        for row in TABLE:
            if match := row.native_pattern.fullmatch(torch_key.removeprefix(PREFIX)):
                return tuple(row.flax.format(**match.groupdict()).split("."))
    raise KeyError(f"{torch_key!r} is not a tensor of X-VLA; is this an X-VLA checkpoint of LeRobot ≥ 0.6?")


@cache
def to_torch_key(path: tuple[str, ...]) -> str:
    """Return the native torch key of a flax path, e.g. ``("transformer", "pos_emb")``.

    Raises:
        KeyError: If X-VLA has no such tensor.
    """
    for row in TABLE:
        if match := row.flax_pattern.fullmatch(".".join(path)):
            return PREFIX + row.native.format(**match.groupdict())
    raise KeyError(f"{'/'.join(path)!r} is not a leaf of X-VLA's parameter tree.")


def is_vendored(torch_keys: Iterable[str]) -> bool:
    """Tell whether a checkpoint has the older, vendored Florence-2 layout, by its signature keys."""
    signature = "model.vlm.language_model.model."
    return any(key == "model.vlm.image_projection" or key.startswith(signature) for key in torch_keys)


def to_native_key(torch_key: str) -> str | None:
    """Translate a key of a vendored checkpoint; keys both layouts share come back unchanged.

    The tensors named in ``TRANSPOSED`` must be transposed by the caller.

    Returns:
        The native key, or None for a tensor the native layout does not have.
    """
    if torch_key in DROPPED:
        return None
    if torch_key.startswith(PREFIX):
        for row in TABLE:
            pattern = row.vendored_pattern
            if pattern and (match := pattern.fullmatch(torch_key.removeprefix(PREFIX))):
                return PREFIX + row.native.format(**match.groupdict())
    return torch_key
