"""The key table covers every tensor of a LeRobot X-VLA, one to one, in both of its layouts."""

import re

import jax
import pytest
import torch
from hypothesis import Phase, given, settings
from lerobot.policies.xvla.modeling_xvla import (
    XVLAPolicy,
    _is_vendored_florence_state_dict,
    _remap_vendored_florence_state_dict,
)
from reference import flax_params, saved_config, torch_config
from xvla_configs import Case, cases

from bridge.weights import keymap
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.init import parameter_shapes
from pirl_jax.xvla.model import BUFFERS

VENDORED_SPELLINGS = [
    (r"vision_tower\.convs\.(\d+)\.conv\.", r"vision_tower.convs.\1.proj."),
    (r"(blocks\.\S+)\.(conv[12])\.", r"\1.\2.fn.dw."),
    (r"spatial_block\.norm1\.", "spatial_block.window_attn.norm."),
    (r"channel_block\.norm1\.", "channel_block.channel_attn.norm."),
    (r"(window_attn|channel_attn)\.(qkv|proj)\.", r"\1.fn.\2."),
    (r"(vision_tower\S+)\.norm2\.", r"\1.ffn.norm."),
    (r"(vision_tower\S+)\.ffn\.(fc[12])\.", r"\1.ffn.fn.net.\2."),
    (r"multi_modal_projector\.image_projection\.weight", "image_projection"),
    (r"multi_modal_projector\.image_proj_norm\.", "image_proj_norm."),
    (r"multi_modal_projector\.image_position_embed\.", "image_pos_embed."),
    (r"multi_modal_projector\.visual_temporal_embed\.", "visual_temporal_embed."),
    (r"vlm\.language_model\.", "vlm.language_model.model."),
]
"""How the older checkpoints spell native keys: LeRobot's remapping inverted by hand."""


def to_vendored(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rewrite a state dict as the remote-code model would have saved it."""
    vendored = {}
    for key, tensor in state.items():
        for pattern, spelling in VENDORED_SPELLINGS:
            key, replaced = re.subn(pattern, spelling, key, count=1)
            if replaced:
                break
        vendored[key] = tensor.T.contiguous() if key.endswith("vlm.image_projection") else tensor
    vendored["model.vlm.language_model.final_logits_bias"] = torch.zeros(1, 3)
    return vendored


def without_activation_parameters(case: Case) -> dict:
    """The vendored layout never had activations with parameters."""
    florence = case.settings["florence_config"]
    florence = {name: {**section, "activation_function": "gelu"} for name, section in florence.items()}
    return {**case.settings, "florence_config": florence}


@settings(max_examples=15, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
@given(cases())
def test_keys_and_leaves_correspond_one_to_one(case: Case) -> None:
    torch_cfg = torch_config(case.settings)
    config = XVLAConfig.from_dict(saved_config(torch_cfg))
    state = XVLAPolicy(torch_cfg).state_dict()

    paths = {key: keymap.to_flax_path(key) for key in state}
    assert len(set(paths.values())) == len(state)
    assert all(keymap.to_torch_key(path) == key for key, path in paths.items())

    tree = flax_params(state, config)
    shapes = parameter_shapes(config)
    assert jax.tree.structure(tree) == jax.tree.structure(shapes)
    assert jax.tree.map(lambda x: x.shape, tree) == jax.tree.map(lambda x: x.shape, shapes)


@settings(max_examples=5, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
@given(cases())
def test_vendored_layout_is_translated_as_lerobot_does(case: Case) -> None:
    state = XVLAPolicy(torch_config(without_activation_parameters(case))).state_dict()
    vendored = to_vendored(state)
    assert keymap.is_vendored(vendored)
    assert _is_vendored_florence_state_dict(vendored)
    assert not keymap.is_vendored(state)

    expected = _remap_vendored_florence_state_dict(vendored)
    translated = {keymap.to_native_key(key): key for key in vendored}
    assert translated.pop(None) in keymap.DROPPED
    assert set(translated) == set(expected) == set(state)
    for native, key in translated.items():
        tensor = vendored[key].T if key in keymap.TRANSPOSED else vendored[key]
        assert torch.equal(tensor, expected[native])


def test_native_keys_pass_through_the_vendored_translation() -> None:
    assert keymap.to_native_key("model.transformer.pos_emb") == "model.transformer.pos_emb"


@pytest.mark.parametrize(
    "key", ["model.vlm.lm_head.weight", "transformer.pos_emb", "model.transformer.blocks.x.norm1.bias"]
)
def test_unknown_keys_are_named(key: str) -> None:
    with pytest.raises(KeyError, match=re.escape(key)):
        keymap.to_flax_path(key)


@pytest.mark.parametrize(
    "path", [("vlm", "lm_head", "weight"), ("model", "transformer", "pos_emb"), ("transformer",)]
)
def test_unknown_paths_are_named(path: tuple[str, ...]) -> None:
    with pytest.raises(KeyError, match="/".join(path)):
        keymap.to_torch_key(path)


@settings(max_examples=5, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
@given(cases())
def test_buffers_are_what_torch_does_not_train(case: Case) -> None:
    policy = XVLAPolicy(torch_config(case.settings))
    buffers = {name for name, _ in policy.named_buffers()}
    assert {key for key in policy.state_dict() if key.split(".")[-1] in BUFFERS} == buffers
