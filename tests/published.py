"""X-VLA at the size of the published checkpoints (``lerobot/xvla-*``): 879.7 M parameters, random ones."""

from __future__ import annotations

import copy
from typing import Any

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.xvla import XVLAConfig
from lerobot.utils.constants import ACTION, OBS_STATE

VIEWS = ("observation.images.image", "observation.images.image2", "observation.images.empty_camera_0")

FLORENCE_2_LARGE: dict[str, Any] = {
    "vision_config": {
        "model_type": "florence_vision",
        "depths": [1, 1, 9, 1],
        "patch_size": [7, 3, 3, 3],
        "patch_stride": [4, 2, 2, 2],
        "patch_padding": [3, 1, 1, 1],
        "patch_prenorm": [False, True, True, True],
        "embed_dim": [256, 512, 1024, 2048],
        "num_heads": [8, 16, 32, 64],
        "num_groups": [8, 16, 32, 64],
        "window_size": 12,
        "projection_dim": 1024,
        "max_position_embeddings": 50,
        "max_temporal_embeddings": 100,
    },
    "text_config": {
        "model_type": "bart",
        "vocab_size": 51289,
        "d_model": 1024,
        "encoder_layers": 12,
        "decoder_layers": 1,
        "encoder_attention_heads": 16,
        "decoder_attention_heads": 16,
        "encoder_ffn_dim": 4096,
        "decoder_ffn_dim": 4096,
        "max_position_embeddings": 4096,
    },
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


def published_config(**overrides: Any) -> XVLAConfig:
    """LeRobot's config of the published network on LIBERO: two cameras, the third view empty."""
    settings: dict[str, Any] = {
        "input_features": {key: PolicyFeature(FeatureType.VISUAL, (3, 256, 256)) for key in VIEWS[:2]}
        | {OBS_STATE: PolicyFeature(FeatureType.STATE, (20,))},
        "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (20,))},
        "chunk_size": 30,
        "n_action_steps": 30,
        "num_denoising_steps": 10,
        "florence_config": FLORENCE_2_LARGE,
        "tokenizer_max_length": 50,
        "resize_imgs_with_padding": (224, 224),
        "empty_cameras": 1,
        "hidden_size": 1024,
        "depth": 24,
        "num_heads": 16,
        "mlp_ratio": 4.0,
        "num_domains": 30,
        "len_soft_prompts": 32,
        "dim_time": 32,
        "max_len_seq": 512,
        "max_state_dim": 20,
        "action_mode": "ee6d",
    }
    return XVLAConfig(**(settings | overrides))


PARTS = {"tiny": 1 / 24, "quarter": 1 / 4, "half": 1 / 2, "published": 1.0}


def part_of_published(part: float, **overrides: Any) -> XVLAConfig:
    """LeRobot's config with a part of the published layers, of head and encoder alike."""
    florence = copy.deepcopy(FLORENCE_2_LARGE)
    florence["text_config"]["encoder_layers"] = max(1, round(12 * part))
    florence["text_config"]["vocab_size"] = round(51289 * part)
    florence["vision_config"]["depths"] = [1, 1, max(1, round(9 * part)), 1]
    return published_config(**({"depth": max(1, round(24 * part)), "florence_config": florence} | overrides))
