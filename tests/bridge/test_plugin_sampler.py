"""Promises of the actor's sampler: LeRobot's chain, plus noise that is scored as it was drawn."""

import numpy as np
import pytest
import torch
from lerobot.lerobot_types import TransitionKey
from lerobot.policies.xvla import XVLAPolicy
from lerobot.policies.xvla.processor_xvla import XVLARotation6DToAxisAngleProcessorStep
from scipy import stats
from tiny import doubtful_gripper, tiny_policy_config

from bridge.plugin.sampler import channel_groups, sample, use_float32_head
from pirl_jax import gripper
from pirl_jax.recipe import NoiseConfig

MODES = ("auto", "ee6d", "joint", "agibot_ee6d", "franka_joint7", "so101_bimanual")
NOISE = NoiseConfig(level=0.1)


def make_policy(**settings):
    torch.manual_seed(0)
    return XVLAPolicy(tiny_policy_config(**settings)).eval()


def scored_dims(model):
    return tuple(sorted(channel for group in channel_groups(model).values() for channel in group))


def observations(batch=2):
    generator = torch.Generator().manual_seed(1)
    return {
        "observation.images.front": torch.randn((batch, 3, 64, 64), generator=generator),
        "observation.state": torch.randn((batch, 5), generator=generator),
        "observation.language.tokens": torch.randint(0, 12, (batch, 10), generator=generator),
    }


@pytest.mark.parametrize(
    "settings",
    [
        *({"action_mode": mode, "max_state_dim": 20} for mode in MODES),
        {"max_action_dim": 7},
        {"use_proprio": False},
        {"num_denoising_steps": 1},
        {"num_denoising_steps": 10},
        {"use_hetero_proj": True},
    ],
    ids=str,
)
def test_without_noise_it_is_lerobots_sampler_bit_for_bit(settings):
    policy = make_policy(**settings)
    torch.manual_seed(3)
    expected = policy._get_action_chunk(observations())
    torch.manual_seed(3)
    drawn = sample(policy, observations(), NOISE, None)
    assert torch.equal(policy.model.action_space.postprocess(drawn.action.clone()), expected)


@pytest.mark.parametrize("mode", MODES)
def test_noise_is_on_the_scored_channels_only(mode):
    policy = make_policy(action_mode=mode, max_state_dim=20)
    torch.manual_seed(3)
    plain = sample(policy, observations(), NOISE, None)
    torch.manual_seed(3)
    noisy = sample(policy, observations(), NOISE, 1)
    moved = (noisy.action != plain.action).all(dim=(0, 1)).nonzero().flatten().tolist()
    unmoved = (noisy.action == plain.action).all(dim=(0, 1)).nonzero().flatten().tolist()
    assert tuple(moved) == scored_dims(policy.model)
    assert len(moved) + len(unmoved) == policy.model.dim_action


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_the_log_density_is_that_of_the_kept_latents(rho):
    policy = make_policy(max_action_dim=7)
    drawn = sample(policy, observations(), NoiseConfig(level=0.1, correlation=rho), 1)
    x1, x_t, x_s = drawn.latents
    batch = observations()
    inputs = policy._build_model_inputs(batch)
    with torch.no_grad():
        features = policy.model.forward_vlm(inputs["input_ids"], inputs["image_input"], inputs["image_mask"])
        proprio, x = policy.model.action_space.preprocess(inputs["proprio"], x_t)
        mean = policy.model.transformer(
            domain_id=inputs["domain_id"],
            action_with_noise=x,
            proprio=proprio,
            t=torch.full((2,), 0.2),
            **features,
        )
    residual = (x_s - mean)[..., :4].double().numpy()
    H = residual.shape[1]
    covariance = 0.1**2 * ((1 - rho) * np.eye(H) + rho * np.ones((H, H)))
    for n in range(1, H + 1):  # any executed prefix of the chunk
        joint = stats.multivariate_normal(cov=covariance[:n, :n]).logpdf(residual[:, :n].swapaxes(1, 2))
        np.testing.assert_allclose(drawn.log_prob[:, :n].sum(-1), joint.reshape(2, 4).sum(-1), atol=3e-4)
    assert torch.equal(x_s, drawn.action)
    assert not torch.equal(x1, x_t)


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_the_noise_has_the_level_and_correlation_asked_for(rho):
    policy = make_policy()
    batch = observations(64)
    torch.manual_seed(3)
    plain = sample(policy, batch, NOISE, None).action
    torch.manual_seed(3)
    noisy = sample(policy, batch, NoiseConfig(level=0.1, correlation=rho), 1).action
    residual = (noisy - plain)[..., list(scored_dims(policy.model))]
    z = residual.swapaxes(1, 2).reshape(-1, residual.shape[1]).numpy() / 0.1  # [chunks · channels, H]
    moments = z.T @ z / len(z)
    expected = (1 - rho) * np.eye(len(moments)) + rho
    assert np.abs(moments - expected).max() < 4.5 * np.sqrt(2 / len(z))


@pytest.mark.parametrize(("mode", "grippers"), [("ee6d", (9,)), ("joint", (6, 13))])
def test_a_drawn_gripper_is_what_the_robot_executes_and_changes_nothing_else(mode, grippers):
    policy = make_policy(action_mode=mode, max_state_dim=20)
    start = sample(policy, observations(16), NOISE, None).action
    temperature = max(doubtful_gripper(policy, start, channel) for channel in grippers)
    config = NoiseConfig(level=0.1, gripper="bernoulli", gripper_temperature=temperature)
    plain, drawn = (
        sample(policy, observations(16), noise, 1, torch.Generator().manual_seed(4))
        for noise in (NOISE, config)
    )
    others = [channel for channel in range(policy.model.dim_action) if channel not in grippers]
    assert torch.equal(drawn.action[..., others], plain.action[..., others])
    assert torch.equal(drawn.action, drawn.latents[2])
    closed = drawn.latents[2][..., grippers] > 0
    assert (closed[:, 1:] != closed[:, :-1]).any(), "no chunk in which the gripper moves"

    executed = policy.model.action_space.postprocess(drawn.action.clone())
    assert torch.equal(executed[..., grippers] > 0.5, closed)
    if mode == "ee6d":
        libero = XVLARotation6DToAxisAngleProcessorStep()({TransitionKey.ACTION: executed[0]})
        assert torch.equal(libero[TransitionKey.ACTION][:, -1], torch.where(closed[0, :, 0], 1.0, -1.0))

    # Where nothing else touches the channel, the plain chain ends in its logit.
    mean, outcome = plain.action.double().numpy(), drawn.latents[2].double().numpy()
    expected = gripper.log_prob(mean, outcome, grippers, config)
    np.testing.assert_allclose((drawn.log_prob - plain.log_prob).numpy(), expected, atol=2e-5)


def test_without_noise_no_gripper_is_drawn():
    policy = make_policy(action_mode="ee6d", max_state_dim=20)
    torch.manual_seed(3)
    expected = policy._get_action_chunk(observations())
    torch.manual_seed(3)
    drawn = sample(policy, observations(), NoiseConfig(level=0.1, gripper="bernoulli"), None)
    assert torch.equal(policy.model.action_space.postprocess(drawn.action.clone()), expected)


def test_a_seeded_generator_repeats_itself_and_leaves_the_global_one_alone():
    policy = make_policy()
    torch.manual_seed(9)
    first = sample(policy, observations(), NOISE, 1, torch.Generator().manual_seed(4)).latents
    torch.manual_seed(10)
    again = sample(policy, observations(), NOISE, 1, torch.Generator().manual_seed(4)).latents
    assert torch.equal(first, again)


def test_the_head_is_float32_under_a_bfloat16_encoder():
    policy = make_policy(dtype="bfloat16")
    use_float32_head(policy)
    assert {p.dtype for p in policy.model.vlm.parameters()} == {torch.bfloat16}
    drawn = sample(policy, observations(), NOISE, 1)
    assert {p.dtype for p in policy.model.transformer.parameters()} == {torch.float32}
    assert drawn.latents.dtype == drawn.log_prob.dtype == torch.float32
    # Not merely bfloat16 numbers in float32 boxes.
    assert not torch.equal(drawn.latents[1], drawn.latents[1].bfloat16().float())
