"""End to end, on random networks, the Flax X-VLA gives what LeRobot's torch policy gives."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from reference import (
    COMPILER_OPTIONS,
    FLOAT32_TOLERANCE,
    assert_close,
    flax_params,
    random_policy,
    saved_config,
    to_jax,
    torch_config,
)
from xvla_configs import TWO_QUICK, Case, cases

from pirl_jax.xvla.actions import prepare_proprio
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.model import XVLA, generate_actions

CONFIGS_PER_MODE = 8

torch.set_num_threads(1)


def random_batch(case: Case, num_domains: int) -> dict[str, torch.Tensor]:
    """A batch as LeRobot's policy takes it; action chunks may be too long, short, wide or narrow."""
    torch.manual_seed(case.seed)
    batch = {key: torch.randn(case.batch, 3, *case.image_size) for key in case.present}
    text = case.settings["florence_config"]["text_config"]
    (state_dim,) = case.settings["input_features"]["observation.state"][1]
    (action_dim,) = case.settings["output_features"]["action"][1]
    return {
        **batch,
        "observation.state": torch.randn(case.batch, state_dim),
        "observation.language.tokens": torch.randint(0, text["vocab_size"], (case.batch, case.num_tokens)),
        "domain_id": torch.randint(0, num_domains, (case.batch,)),
        "action": torch.rand(case.batch, 1 + case.seed % 6, action_dim),
    }


@pytest.mark.parametrize("mode", TWO_QUICK)
@settings(
    max_examples=CONFIGS_PER_MODE, derandomize=True, deadline=None, database=None, phases=[Phase.generate]
)
@given(data=st.data())
def test_flax_equals_lerobot_end_to_end_in_float32(mode: str, data: st.DataObject) -> None:
    case = data.draw(cases(mode))
    torch_cfg = torch_config(case.settings)
    config = XVLAConfig.from_dict(saved_config(torch_cfg))
    policy = random_policy(torch_cfg, case.seed)
    params = flax_params(policy.state_dict(), config)
    batch = random_batch(case, config.num_domains)
    inputs = policy._build_model_inputs(batch)
    target = policy._prepare_action_targets(batch)

    model = policy.model
    with torch.no_grad():
        features = model.forward_vlm(inputs["input_ids"], inputs["image_input"], inputs["image_mask"])
        torch.manual_seed(case.seed)
        t = (torch.rand(1) + torch.arange(case.batch) / case.batch) % (1 - 1e-5)
        loss_noise = torch.randn_like(target)
        torch.manual_seed(case.seed)
        losses = model(action=target, **inputs)
        x_t = torch.randn(case.batch, config.chunk_size, config.dim_action)
        proprio_m, x_t_m = model.action_space.preprocess(inputs["proprio"], x_t)
        clean = model.transformer(
            inputs["domain_id"], **features, action_with_noise=x_t_m, proprio=proprio_m, t=t
        )
        torch.manual_seed(case.seed)
        noise = torch.randn(case.batch, config.chunk_size, config.dim_action)
        torch.manual_seed(case.seed)
        actions = policy.predict_action_chunk(batch)

    flax_model = XVLA(config)
    images = jnp.stack([to_jax(batch[key]) for key in case.present], axis=1)
    tokens, domain_id = to_jax(inputs["input_ids"]), to_jax(inputs["domain_id"])
    proprio = jnp.asarray(prepare_proprio(batch["observation.state"].numpy(), config.dim_proprio))

    @partial(jax.jit, compiler_options=COMPILER_OPTIONS)
    def run(params):
        def apply(*args, method):
            return flax_model.apply({"params": params}, *args, method=method)

        features = apply(images, tokens, method="encode")
        clean = apply(features, to_jax(x_t), to_jax(t), proprio, domain_id, method="predict")
        actions = generate_actions(flax_model, params, features, to_jax(noise), proprio, domain_id)
        losses = apply(
            *(images, tokens, proprio, domain_id, to_jax(batch["action"]), to_jax(loss_noise), to_jax(t)),
            method="supervised_loss",
        )
        return features, clean, actions, losses

    got_features, got_clean, got_actions, got_losses = run(params)
    assert_close("VLM features", got_features.vlm, features["vlm_features"], FLOAT32_TOLERANCE)
    present = got_features.aux.reshape(case.batch, -1, got_features.aux.shape[-1])
    theirs = features["aux_visual_inputs"]
    assert_close("aux features", present, theirs[:, : present.shape[1]], FLOAT32_TOLERANCE)
    assert not theirs[:, present.shape[1] :].any()  # of views that are absent
    assert_close("head output", got_clean, clean, FLOAT32_TOLERANCE)
    assert_close("generated actions", got_actions, actions, FLOAT32_TOLERANCE)
    assert set(got_losses) == set(losses)
    parts = jnp.stack([got_losses[name] for name in losses])
    assert_close("supervised loss", parts, torch.stack(list(losses.values())), FLOAT32_TOLERANCE)
