"""The architecture is read from LeRobot's config.json as LeRobot reads it, or refused in plain words."""

import json
from pathlib import Path
from typing import Any

import pytest
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from reference import torch_config

from pirl_jax.xvla.config import XVLAConfig

VISION = {
    "depths": [1, 0],
    "patch_size": [5, 3],
    "patch_stride": [4, 2],
    "patch_padding": [2, 1],
    "patch_prenorm": [False, True],
    "num_heads": [1, 2],
    "num_groups": [2, 4],
    "window_size": 3,
    "projection_dim": 16,
}
NATIVE = VISION | {"embed_dim": [4, 8], "max_position_embeddings": 9, "max_temporal_embeddings": 7}
MICROSOFT = VISION | {
    "model_type": "davit",
    "dim_embed": [4, 8],
    "enable_checkpoint": False,
    "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 9},
    "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 7},
    "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
}
TEXT = {
    "vocab_size": 11,
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_ffn_dim": 8,
    "encoder_attention_heads": 2,
    "decoder_layers": 1,
    "decoder_ffn_dim": 4,
    "decoder_attention_heads": 1,
    "max_position_embeddings": 40,
}


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "input_features": {
            "observation.images.wrist": ("VISUAL", (3, 20, 30)),
            "observation.state": ("STATE", (5,)),
            "observation.images.base": ("VISUAL", (3, 20, 30)),
        },
        "output_features": {"action": ("ACTION", (6,))},
        "florence_config": {"vision_config": NATIVE, "text_config": TEXT},
        "hidden_size": 8,
        "num_heads": 2,
        "depth": 1,
        "action_mode": "auto",
        "chunk_size": 4,
        "n_action_steps": 3,
        **changes,
    }


def saved(folder: Path, **changes: Any) -> dict[str, Any]:
    XVLAPolicy(torch_config(settings(**changes))).save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


def test_saved_policy_reads_as_lerobot_reads_it(tmp_path: Path) -> None:
    config = XVLAConfig.from_dict(saved(tmp_path, max_action_dim=9, max_state_dim=8, dtype="bfloat16"))
    reloaded = XVLAPolicy.from_pretrained(tmp_path)
    for name in (
        *(
            "chunk_size",
            "n_action_steps",
            "num_denoising_steps",
            "num_domains",
            "hidden_size",
            "depth",
            "num_heads",
        ),
        *("len_soft_prompts", "dim_time", "max_len_seq", "use_hetero_proj", "dtype", "tokenizer_name"),
        *(
            "tokenizer_max_length",
            "action_mode",
            "freeze_vision_encoder",
            "train_soft_prompts",
            "optimizer_lr",
        ),
        *(
            "optimizer_eps",
            "optimizer_weight_decay",
            "scheduler_warmup_steps",
            "domain_feature_key",
            "mlp_ratio",
        ),
    ):
        assert getattr(config, name) == getattr(reloaded.config, name), name
    assert config.optimizer_betas == tuple(reloaded.config.optimizer_betas)
    assert config.image_keys == ("observation.images.wrist", "observation.images.base")
    assert (config.dim_action, config.real_action_dim, config.dim_proprio) == (9, 6, 8)
    assert config.num_views == reloaded.config.num_image_views == 2
    assert hash(config) == hash(XVLAConfig.from_dict(json.loads((tmp_path / "config.json").read_text())))


def test_both_dialects_of_the_vision_config_are_one_architecture() -> None:
    def read(vision: dict[str, Any], text: dict[str, Any]) -> XVLAConfig:
        features = {"observation.images.a": {"type": "VISUAL", "shape": [3, 20, 30]}}
        florence = {"vision_config": vision, "text_config": text}
        return XVLAConfig.from_dict(
            {
                "input_features": features,
                "florence_config": florence,
                "use_proprio": False,
                "action_mode": "auto",
            }
        )

    microsoft_text = {**TEXT, "model_type": "florence2_language"}
    assert read(NATIVE, TEXT) == read(MICROSOFT, microsoft_text)


@pytest.mark.parametrize(("declared", "empty"), [(None, 0), (None, 2), (5, 0), (1, 1)])
def test_views_are_counted_as_lerobot_counts_them_also_after_a_reload(
    tmp_path: Path, declared: int | None, empty: int
) -> None:
    config = saved(tmp_path, num_image_views=declared, empty_cameras=empty)
    reloaded = XVLAPolicy.from_pretrained(tmp_path)
    read = XVLAConfig.from_dict(config)
    assert read.num_views == reloaded.config.num_image_views
    assert read.image_keys == ("observation.images.wrist", "observation.images.base")


def test_generic_names_of_the_text_config_override_the_specific_ones() -> None:
    text = {**TEXT, "d_model": 99, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4}
    expected = torch_config(settings(florence_config={"vision_config": NATIVE, "text_config": text}))
    expected = expected.get_florence_config().text_config
    config = XVLAConfig.from_dict(raw(florence_config={"vision_config": NATIVE, "text_config": text}))
    assert config.text.d_model == expected.d_model == 16
    assert config.text.encoder_layers == expected.encoder_layers == 3
    assert config.text.encoder_attention_heads == expected.encoder_attention_heads == 4


def raw(**changes: Any) -> dict[str, Any]:
    """The config as JSON."""
    config = settings(**changes)
    for group in ("input_features", "output_features"):
        config[group] = {
            name: {"type": kind, "shape": shape} for name, (kind, shape) in config[group].items()
        }
    return config


def florence(section: str, **changes: Any) -> dict[str, Any]:
    sections = {"vision_config": MICROSOFT, "text_config": TEXT}
    return {"florence_config": {**sections, section: {**sections[section], **changes}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "act"}, "type 'act'"),
        ({"florence_config": {}}, "vision_config is missing"),
        ({"florence_config": {"vision_config": NATIVE}}, "text_config is missing"),
        ({"action_mode": "cartesian"}, "cartesian.*joint"),
        ({"action_mode": "ee6d", "max_state_dim": 19}, "max_state_dim ≥ 20"),
        ({"action_mode": "joint", "use_proprio": False}, "use_proprio=true"),
        ({"action_mode": "so101_bimanual"}, "max_state_dim=20"),
        ({"n_action_steps": 5}, "chunk_size must be ≥ n_action_steps; got 4 < 5"),
        ({"chunk_size": 0}, "chunk_size must be positive"),
        ({"dtype": "float16"}, "float16"),
        ({"hidden_size": 9}, "divisible by num_heads"),
        ({"input_features": {"observation.state": ("STATE", (5,))}}, "VISUAL"),
        ({"input_features": {"observation.images.a": ("VISUAL", (3, 9, 9))}}, "observation.state"),
        (florence("text_config", model_type="t5"), "t5"),
        (florence("text_config", d_model=32), "projection_dim must equal"),
        (florence("text_config", encoder_attention_heads=3), "divisible by encoder_attention_heads"),
        (florence("vision_config", model_type="swin"), "swin"),
        (florence("vision_config", image_pos_embed={"type": "sine"}), "learned_abs_2d"),
        (florence("vision_config", visual_temporal_embedding={"type": "LEARNED"}), "COSINE"),
        (florence("vision_config", image_feature_source=["last_frame"]), "temporal_avg_pool"),
        (florence("vision_config", num_heads=[1]), "one entry a stage"),
        (florence("vision_config", depths=[1]), "depths needs 2 entries"),
        (florence("vision_config", num_groups=[3, 3]), "groups"),
        (florence("vision_config", dim_embed=[4, 9], num_heads=[1, 1], num_groups=[1, 1]), "even"),
    ],
)
def test_a_network_x_vla_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        XVLAConfig.from_dict(raw(**changes))
