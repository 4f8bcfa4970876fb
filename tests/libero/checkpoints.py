"""A tiny random X-VLA as an export for LIBERO: two cameras, 20-d ``ee6d`` state and actions, domain 0."""

from __future__ import annotations

from pathlib import Path

import jax
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.configs.default import DatasetConfig
from tiny import build_tokenizer, tiny_policy_config

from bridge.settings.sft_config import SFTConfig
from bridge.weights.export import export_pretrained, policy_config
from pirl_jax.xvla.init import init_params


def export_for_libero(folder: Path, key: int = 0) -> Path:
    """Write ``pretrained_model/`` with this project's own export and return it."""
    policy = tiny_policy_config(
        input_features={
            "observation.images.image": PolicyFeature(FeatureType.VISUAL, (3, 64, 64)),
            "observation.images.image2": PolicyFeature(FeatureType.VISUAL, (3, 64, 64)),
            "observation.state": PolicyFeature(FeatureType.STATE, (20,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (20,))},
        action_mode="ee6d",
        max_action_dim=20,
        max_state_dim=20,
        num_denoising_steps=1,
        resize_imgs_with_padding=(64, 64),
        max_len_seq=256,
        tokenizer_name=str(build_tokenizer(folder / "tokenizer")),
    )
    cfg = SFTConfig(dataset=DatasetConfig("test/demos"), policy=policy)
    pretrained = folder / "pretrained_model"
    export_pretrained(
        init_params(policy_config(policy), jax.random.key(key)), cfg, pretrained, for_libero=True
    )
    return pretrained
