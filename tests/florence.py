"""A small Florence-2, in its native dialect."""

from typing import Any


def florence_config(vocab_size: int = 32, width: int = 16, image_size: int = 64) -> dict[str, Any]:
    """Florence-2's config in the native dialect, two DaViT stages and one BART layer."""
    return {
        "vision_config": {
            "model_type": "florence_vision",
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [width // 2, width],
            "num_heads": [1, 2],
            "num_groups": [1, 2],
            "window_size": 4,
            "projection_dim": width,
            "max_position_embeddings": max(8, image_size // 8),
            "max_temporal_embeddings": 4,
        },
        "text_config": {
            "model_type": "bart",
            "vocab_size": vocab_size,
            "d_model": width,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 2 * width,
            "decoder_ffn_dim": 2 * width,
            "max_position_embeddings": 128,
        },
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
