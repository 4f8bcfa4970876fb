"""Module by module in float64, where only a difference in structure can exceed the tolerance."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lerobot.policies.xvla.action_hub import build_action_space
from lerobot.policies.xvla.soft_transformer import timestep_embedding as torch_timestep_embedding
from reference import (
    COMPILER_OPTIONS,
    FLOAT64_TOLERANCE,
    assert_close,
    flax_params,
    random_policy,
    saved_config,
    to_jax,
    torch_config,
)
from transformers.activations import ACT2FN
from xvla_configs import ACTION_MODES, TWO_QUICK, cases

from pirl_jax.xvla.actions import _bce_with_logits, action_space
from pirl_jax.xvla.channels import xvla_gripper_logits, xvla_groups
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.layers import ACTIVATIONS, attention
from pirl_jax.xvla.model import XVLA
from pirl_jax.xvla.transformer import timestep_embedding
from pirl_jax.xvla.vision import attend_windows

CONFIGS_PER_MODE = 3

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def run(model: XVLA, params: dict[str, Any], function: Any, *args: jax.Array) -> Any:
    """Apply a function of the bound network."""
    apply = partial(model.apply, method=function)
    return jax.jit(lambda p: apply({"params": p}, *args), compiler_options=COMPILER_OPTIONS)(params)


@pytest.mark.parametrize("mode", TWO_QUICK)
@settings(
    max_examples=CONFIGS_PER_MODE, derandomize=True, deadline=None, database=None, phases=[Phase.generate]
)
@given(data=st.data())
def test_every_module_equals_its_torch_original_in_float64(mode: str, data: st.DataObject) -> None:
    case = data.draw(cases(mode))
    torch_cfg = torch_config(case.settings)
    config = XVLAConfig.from_dict(saved_config(torch_cfg))
    policy = random_policy(torch_cfg, case.seed).double()
    params = flax_params(policy.state_dict(), config)
    model, vlm, head = XVLA(config), policy.model.vlm, policy.model.transformer

    def check(name: str, expected: torch.Tensor, function: Any, *inputs: torch.Tensor) -> None:
        got = run(model, params, function, *(to_jax(x) for x in inputs))
        assert got.dtype == jnp.float64
        assert_close(name, got, expected, FLOAT64_TOLERANCE)

    torch.manual_seed(case.seed)
    images = torch.randn(case.batch, 3, *(config.resize_imgs_with_padding or case.image_size)).double()
    tokens = torch.randint(0, config.text.vocab_size, (case.batch, case.num_tokens))
    domain_id = torch.randint(0, config.num_domains, (case.batch,))
    proprio = torch.randn(case.batch, config.dim_proprio).double()
    x_t = torch.randn(case.batch, config.chunk_size, config.dim_action).double()
    t = torch.rand(case.batch).double()
    with torch.no_grad():
        feature_map = vlm.vision_tower(images).last_hidden_state
        nhwc = feature_map.permute(0, 2, 3, 1).contiguous()
        visual = vlm.multi_modal_projector(feature_map)
        embedded = vlm.get_input_embeddings()(tokens)
        sequence = torch.cat([visual, embedded], dim=1)
        encoded = vlm.language_model.encoder(inputs_embeds=sequence)[0]
        aux = visual[:, : config.max_len_seq - config.chunk_size - encoded.shape[1]]
        hidden = []
        head.norm.register_forward_hook(lambda module, inputs, output: hidden.append(output))
        clean = head(domain_id, encoded, aux, x_t, proprio, t)

    pixels = images.permute(0, 2, 3, 1).contiguous()
    check("vision tower", nhwc, lambda m, x: m.vlm.vision_tower(x), pixels)
    check("projector", visual, lambda m, x: m.vlm.multi_modal_projector(x), nhwc)
    check("token embedding", embedded, lambda m, x: m.vlm.language_model.embed(x), tokens)
    check("language encoder", encoded, lambda m, x: m.vlm.language_model(x), sequence)
    inputs = (encoded, aux, x_t, t, proprio, domain_id)
    check("head", clean, lambda m, *x: m.transformer(*x), *inputs)
    check("hidden states", hidden[0], lambda m, *x: m.transformer(*x, hidden=True), *inputs)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(7, 7, 12), (13, 25, 6), (6, 12, 6), (5, 9, 4), (3, 8, 4), (2, 3, 1)]
)
def test_one_weighted_key_stands_for_all_padded_keys_of_a_window(height: int, width: int, size: int) -> None:
    key = jax.random.key(0)
    tokens = jax.random.normal(key, (2, min(height, size), min(width, size), 3, 2, 5))
    padded_token = jax.random.normal(jax.random.fold_in(key, 1), (3, 2, 5))
    full = jnp.broadcast_to(padded_token, (2, size, size, 3, 2, 5))
    full = full.at[:, : tokens.shape[1], : tokens.shape[2]].set(tokens)
    q, k, v = jnp.moveaxis(full.reshape(2, size * size, 3, 2, 5), 2, 0)
    expected = attention(q, k, v).reshape(2, size, size, 10)[:, : tokens.shape[1], : tokens.shape[2]]
    got = attend_windows(tokens, padded_token, size)
    assert_close("windows", got, torch.tensor(expected.tolist(), dtype=torch.float64), FLOAT64_TOLERANCE)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_equals_transformers(name: str) -> None:
    x = torch.linspace(-12, 12, 401, dtype=torch.float64)
    assert_close(name, ACTIVATIONS[name](to_jax(x)), ACT2FN[name](x), FLOAT64_TOLERANCE)


def test_every_activation_of_transformers_is_known() -> None:
    assert set(ACT2FN) == {*ACTIVATIONS, "prelu", "xielu"}


@pytest.mark.parametrize("dim", [0, 2, 7, 32])
def test_time_embedding_equals_lerobot(dim: int) -> None:
    t = torch.rand(5).double()
    assert_close(
        "time", timestep_embedding(to_jax(t), dim), torch_timestep_embedding(t, dim), FLOAT64_TOLERANCE
    )


@pytest.mark.parametrize("real_dim", [4, 20])
@pytest.mark.parametrize("mode", ACTION_MODES)
def test_action_space_equals_lerobot(mode: str, real_dim: int) -> None:
    config = XVLAConfig(action_mode=mode, max_state_dim=20, action_feature_dim=real_dim)
    sizes = {"real_dim": real_dim, "max_dim": config.max_action_dim} if mode == "auto" else {}
    space, reference = action_space(config), build_action_space(mode, **sizes)
    assert space.dim_action == reference.dim_action == config.dim_action
    assert space.real_dim == config.real_action_dim

    pred, target = torch.randn(3, 5, space.dim_action).double(), torch.rand(3, 5, space.dim_action).double()
    proprio = torch.randn(3, 20).double()
    for got, expected in zip(
        space.preprocess(to_jax(proprio), to_jax(pred)), reference.preprocess(proprio, pred), strict=True
    ):
        assert_close("preprocess", got, expected, FLOAT64_TOLERANCE)
    losses = reference.compute_loss(pred, target)
    got_losses = space.compute_loss(to_jax(pred), to_jax(target))
    assert list(got_losses) == list(losses)
    for name, loss in losses.items():
        assert_close(name, got_losses[name], loss, FLOAT64_TOLERANCE)
    got = space.postprocess(to_jax(pred))
    assert_close("postprocess", got, reference.postprocess(pred), FLOAT64_TOLERANCE)


@pytest.mark.parametrize("mode", ACTION_MODES)
def test_scored_channels_reach_the_robot_and_are_no_gripper_logits(mode: str) -> None:
    space = action_space(XVLAConfig(action_mode=mode, max_state_dim=20, action_feature_dim=6))
    scored = {channel for group in xvla_groups(mode, space.real_dim).values() for channel in group}
    assert scored <= set(range(space.real_dim))
    assert not scored & {*space.sigmoid, *space.zeroed}


@pytest.mark.parametrize("mode", ACTION_MODES)
def test_gripper_logits_are_trained_as_such_and_become_probabilities(mode: str) -> None:
    space = action_space(XVLAConfig(action_mode=mode, max_state_dim=20, action_feature_dim=6))
    trained = {g[0] for term in space.loss_terms if term.metric is _bce_with_logits for g in term.groups}
    # Single-arm robots execute the first arm of ee6d's two.
    executed = trained - ({19} if mode == "ee6d" else set())
    assert set(xvla_gripper_logits(mode)) == executed
    assert executed <= {*space.sigmoid}
