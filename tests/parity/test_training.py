"""What training relies on: gradients, masks, bfloat16 features and fresh parameters agree with LeRobot's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from reference import (
    BFLOAT16_TOLERANCE,
    COMPILER_OPTIONS,
    FLOAT32_TOLERANCE,
    assert_close,
    flax_params,
    random_policy,
    saved_config,
    to_jax,
    torch_config,
)
from test_config import MICROSOFT, TEXT, settings

from bridge.weights import keymap
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.init import init_params
from pirl_jax.xvla.model import BUFFERS, XVLA, sample_times

BATCH, TOKENS = 3, 5

torch.set_num_threads(1)


def network(**changes):
    """A policy, its config and its parameters, for the same small network."""
    torch_cfg = torch_config(settings(num_domains=3, num_image_views=3, **changes))
    config = XVLAConfig.from_dict(saved_config(torch_cfg))
    policy = random_policy(torch_cfg)
    return policy, XVLA(config), flax_params(policy.state_dict(), config)


def encode(model, params, *inputs):
    run = jax.jit(partial(model.apply, method="encode"), compiler_options=COMPILER_OPTIONS)
    return run({"params": params}, *inputs)


def observations() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(BATCH, 2, 3, 20, 30), torch.randint(0, 11, (BATCH, TOKENS))


@pytest.mark.parametrize(
    "changes",
    [
        {"action_mode": "ee6d", "use_hetero_proj": True},
        {"action_mode": "auto", "use_proprio": False, "len_soft_prompts": 0},
    ],
)
def test_gradients_of_the_supervised_loss_equal_lerobots(changes: dict) -> None:
    policy, model, params = network(**changes)
    config = model.config
    images, tokens = observations()
    proprio, action = torch.randn(BATCH, config.dim_proprio), torch.rand(BATCH, 4, config.dim_action)
    domain_id = torch.tensor([0, 2, 2])
    padded = torch.cat([images, torch.zeros_like(images[:, :1])], dim=1)
    mask = torch.tensor([[True, True, False]]).repeat(BATCH, 1)

    torch.manual_seed(1)
    t = (torch.rand(1) + torch.arange(BATCH) / BATCH) % (1 - 1e-5)
    noise = torch.randn_like(action)
    torch.manual_seed(1)
    losses = policy.model(tokens, padded, mask, domain_id, proprio, action)
    sum(losses.values()).backward()

    @partial(jax.jit, compiler_options=COMPILER_OPTIONS)
    @jax.grad
    def gradient(params):
        inputs = (to_jax(x) for x in (images, tokens, proprio, domain_id, action, noise, t))
        losses = model.apply({"params": params}, *inputs, method="supervised_loss")
        return sum(losses.values())

    gradients = gradient(params)
    # Relative to each group's largest gradient: key biases, for one, have gradients of zero up to rounding.
    for group, module in (("vlm", policy.model.vlm), ("transformer", policy.model.transformer)):
        scale = max(p.grad.abs().max().item() for p in module.parameters() if p.grad is not None)
        for path, got in jax.tree_util.tree_leaves_with_path({group: gradients[group]}):
            key = keymap.to_torch_key(tuple(entry.key for entry in path))
            if key.split(".")[-1] in BUFFERS:
                assert not got.any()
                continue
            expected = policy.get_parameter(key).grad
            expected = torch.zeros(got.shape) if expected is None else expected
            error = np.abs(np.asarray(got) - expected.numpy()).max() / scale
            assert error <= FLOAT32_TOLERANCE, f"{key}: {error:.2e}"


def test_a_masked_view_has_zero_features_whatever_it_shows() -> None:
    policy, model, params = network()
    images, tokens = observations()
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    with torch.no_grad():
        expected = policy.model.forward_vlm(tokens, images, mask)
    images[~mask] = torch.nan
    features = encode(model, params, to_jax(images), to_jax(tokens), to_jax(mask))
    # Of the three views that the config declares the third is absent, here as in the reference.
    assert features.aux.shape[1] == 1
    assert_close("VLM features", features.vlm, expected["vlm_features"], FLOAT32_TOLERANCE)
    assert_close("aux features", features.aux[:, 0], expected["aux_visual_inputs"], FLOAT32_TOLERANCE)


def test_bfloat16_computes_the_vlm_in_bfloat16_and_the_head_in_float32() -> None:
    policy, model, params = network(
        dtype="bfloat16", florence_config={"vision_config": MICROSOFT, "text_config": TEXT}
    )
    images, tokens = observations()
    with torch.no_grad():
        mask = torch.ones(BATCH, 2, dtype=torch.bool)
        expected = policy.model.forward_vlm(tokens, images.bfloat16(), mask)
    assert params["vlm"]["language_model"]["shared"]["weight"].dtype == jnp.bfloat16

    features = encode(model, params, to_jax(images), to_jax(tokens))
    assert features.vlm.dtype == features.aux.dtype == jnp.bfloat16
    assert_close("VLM features", features.vlm, expected["vlm_features"], BFLOAT16_TOLERANCE)
    assert_close("aux features", features.aux[:, 0], expected["aux_visual_inputs"], BFLOAT16_TOLERANCE)

    # The head: LeRobot's, with the same (bfloat16) weights held in float32.
    config = model.config
    x_t, t = torch.randn(BATCH, 4, config.dim_action), torch.rand(BATCH)
    proprio, domain_id = torch.randn(BATCH, config.dim_proprio), torch.tensor([0, 1, 2])
    aux = features.aux[:, 0]
    both = (features.vlm, np.concatenate([aux, np.zeros_like(aux)], axis=1))  # the third view is absent
    as_torch = [torch.tensor(np.asarray(part, np.float32)) for part in both]
    with torch.no_grad():
        clean = policy.model.transformer.float()(domain_id, *as_torch, x_t, proprio, t)
    inputs = (to_jax(x) for x in (x_t, t, proprio, domain_id))
    head = jax.jit(partial(model.apply, method="predict"))
    got = head({"params": params}, features, *inputs)
    assert got.dtype == jnp.float32
    assert_close("head output", got, clean, FLOAT32_TOLERANCE)


def test_float32_weights_serve_bfloat16_compute() -> None:
    _, model, params = network(dtype="bfloat16")
    images, tokens = (to_jax(x) for x in observations())
    widened = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float32)), params)
    for got, expected in zip(
        encode(model, widened, images, tokens),
        encode(model, params, images, tokens),
        strict=True,
    ):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


def test_fresh_parameters_have_lerobots_distributions() -> None:
    torch_cfg = torch_config(settings(num_domains=3, hidden_size=64))
    config = XVLAConfig.from_dict(saved_config(torch_cfg))
    torch.manual_seed(0)
    expected = flax_params(type(random_policy(torch_cfg))(torch_cfg).state_dict(), config)
    fresh = init_params(config, jax.random.key(0))
    for path, reference in jax.tree_util.tree_leaves_with_path(expected):
        got = fresh
        for entry in path:
            got = got[entry.key]
        name = jax.tree_util.keystr(path)
        assert got.dtype == jnp.float32
        assert abs(got.mean() - reference.mean()) <= 6 * reference.std() / np.sqrt(reference.size), name
        if reference.size >= 500:
            np.testing.assert_allclose(got.std(), reference.std(), rtol=0.15, atol=1e-7, err_msg=name)
            np.testing.assert_allclose(
                abs(got).max(), abs(reference).max(), rtol=0.4, atol=1e-7, err_msg=name
            )
    table = fresh["vlm"]["multi_modal_projector"]["visual_temporal_embed"]["pos_idx_to_embed"]
    reference = expected["vlm"]["multi_modal_projector"]["visual_temporal_embed"]["pos_idx_to_embed"]
    np.testing.assert_allclose(table, reference, atol=1e-6)
    assert not fresh["vlm"]["language_model"]["shared"]["weight"][TEXT.get("pad_token_id", 1)].any()


def test_different_keys_draw_different_parameters_and_equal_keys_equal_ones() -> None:
    config = XVLAConfig.from_dict(saved_config(torch_config(settings())))
    one, again, other = (
        init_params(config, jax.random.key(seed))["transformer"]["pos_emb"] for seed in (0, 0, 1)
    )
    assert (one == again).all()
    assert not (one == other).any()


def test_sampled_times_are_stratified_over_the_batch() -> None:
    times = np.sort(np.asarray(sample_times(jax.random.key(3), 8)))
    assert times.min() >= 0
    assert times.max() < 1
    np.testing.assert_allclose(np.diff(times), 1 / 8, atol=1e-4)


@pytest.mark.parametrize(
    ("tokens", "size", "message"),
    [(40, 20, "embed_positions has 40 positions"), (5, 90, "image_position_embed"), (5, 0, "at least one")],
)
def test_an_input_too_large_for_the_network_is_refused(tokens: int, size: int, message: str) -> None:
    _, model, params = network()
    views = 2 if size else 0
    images = jnp.zeros((1, views, 3, size or 20, size or 20))
    with pytest.raises(ValueError, match=message):
        encode(model, params, images, jnp.zeros((1, tokens), jnp.int32))


def test_a_domain_the_network_does_not_have_gives_nan_not_another_domains_action() -> None:
    _, model, params = network()
    images, tokens = (to_jax(x) for x in observations())
    features = encode(model, params, images, tokens)
    config = model.config
    x_t, proprio = jnp.zeros((BATCH, 4, config.dim_action)), jnp.zeros((BATCH, config.dim_proprio))
    clean = model.apply(
        {"params": params}, features, x_t, jnp.ones(BATCH), proprio, jnp.array([0, 3, 1]), method="predict"
    )
    assert np.isnan(clean[1]).all()
    assert np.isfinite(clean[jnp.array([0, 2])]).all()
