"""A tiny random X-VLA as an export for LIBERO: two cameras, 20-d ``ee6d`` state and actions, domain 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.configs.default import DatasetConfig
from lerobot.policies.xvla import XVLAConfig
from tiny import build_tokenizer, tiny_policy_config

from bridge.settings.sft_config import SFTConfig
from bridge.weights.export import export_pretrained, policy_config
from pirl_jax.xvla.init import init_params

IMAGE_KEYS = ("observation.images.image", "observation.images.image2")
STATE_DIM = ACTION_DIM = 20


def policy_for_libero(folder: Path, **overrides: Any) -> XVLAConfig:
    """Return the policy's config, with a tokenizer in the folder."""
    settings: dict[str, Any] = {
        "input_features": {
            **dict.fromkeys(IMAGE_KEYS, PolicyFeature(FeatureType.VISUAL, (3, 64, 64))),
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE_DIM,)),
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))},
        "action_mode": "ee6d",
        "max_action_dim": 20,
        "max_state_dim": 20,
        "num_denoising_steps": 1,
        "resize_imgs_with_padding": (64, 64),
        "max_len_seq": 256,
        "tokenizer_name": str(build_tokenizer(folder / "tokenizer")),
    }
    return tiny_policy_config(**(settings | overrides))


def export_for_libero(folder: Path, key: int = 0, **overrides: Any) -> Path:
    """Write ``pretrained_model/`` with this project's own export and return it."""
    policy = policy_for_libero(folder, **overrides)
    cfg = SFTConfig(dataset=DatasetConfig("test/demos"), policy=policy)
    pretrained = folder / "pretrained_model"
    export_pretrained(
        init_params(policy_config(policy), jax.random.key(key)), cfg, pretrained, for_libero=True
    )
    return pretrained
