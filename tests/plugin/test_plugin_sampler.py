"""Promises of the actor's sampler: LeRobot's chain, plus noise that is scored as it was drawn."""

import numpy as np
import pytest
import torch
from lerobot.lerobot_types import TransitionKey
from lerobot.policies.xvla import XVLAPolicy
from lerobot.policies.xvla.processor_xvla import XVLARotation6DToAxisAngleProcessorStep
from scipy import stats
from tiny import doubtful_gripper, tiny_policy_config

from bridge.plugin.noise_head import NoiseHead, summarize
from bridge.plugin.sampler import channel_groups, sample, use_float32_head
from pirl_jax.likelihood import gripper, modes
from pirl_jax.recipe import NoiseConfig

MODES = ("auto", "ee6d", "joint", "agibot_ee6d", "franka_joint7", "so101_bimanual")
NOISE = NoiseConfig(level=0.1)


def make_policy(**settings):
    torch.manual_seed(0)
    return XVLAPolicy(tiny_policy_config(**settings)).eval()


def scored_dims(model):
    return tuple(sorted(channel for group in channel_groups(model).values() for channel in group))


def head_of(policy, config):
    """A noise head of random weights, where the mode has one."""
    if not modes.MODES[config.mode].learned_std:
        return None
    head = NoiseHead.for_policy(policy, config)
    torch.nn.init.normal_(head.bound.weight)
    return head


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
    for name, mode in modes.MODES.items():
        if not mode.noised_steps(policy.config.num_denoising_steps):
            continue  # refused by the config's validation
        config = NoiseConfig(mode=name, level=0.1)
        head = head_of(policy, config)
        torch.manual_seed(3)
        drawn = sample(policy, observations(), config, None, head=head)
        assert torch.equal(policy.model.action_space.postprocess(drawn.action.clone()), expected), name


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
@pytest.mark.parametrize("mode", ["terminal", "flow_noise"])
def test_the_log_density_is_that_of_the_kept_latents(mode, rho):
    policy = make_policy(max_action_dim=7)
    config = NoiseConfig(mode=mode, level=0.1, correlation=rho)
    head, batch = head_of(policy, config), observations()
    drawn = sample(policy, batch, config, modes.MODES[mode].first_steps(5)[0], head=head)
    inputs = policy._build_model_inputs(batch)
    with torch.no_grad():
        features = policy.model.forward_vlm(inputs["input_ids"], inputs["image_input"], inputs["image_mask"])
    x1, H, joint = drawn.latents[0], 8, np.zeros((8, 2, 4))
    path = drawn.latents[1:] if head is None else drawn.latents
    correlation = (1 - rho) * np.eye(H) + rho * np.ones((H, H))
    for m, k in enumerate(range(len(path) - 1, 0, -1)):
        t, s = torch.full((2,), k / 5), (k - 1) / 5
        with torch.no_grad():
            proprio, x = policy.model.action_space.preprocess(inputs["proprio"], path[m])
            inside = {"domain_id": inputs["domain_id"], "action_with_noise": x, "proprio": proprio, "t": t}
            mean = s * x1 + (1 - s) * policy.model.transformer(**inside, **features)
            std = np.full((2, 4), 0.1)
            if head is not None:
                std = std * head(summarize(features, inputs["proprio"]), t).exp().double().numpy()[:, :4]
        z = (path[m + 1] - mean)[..., :4].double().numpy() / std[:, None]
        for n in range(1, H + 1):  # any executed prefix of the chunk
            normal = stats.multivariate_normal(cov=correlation[:n, :n])
            joint[n - 1] += normal.logpdf(z[:, :n].swapaxes(1, 2)).reshape(2, 4) - n * np.log(std)
    prefixes = drawn.log_prob.cumsum(-1).T
    np.testing.assert_allclose(prefixes, joint.sum(-1), atol=3e-4, rtol=1e-5)
    assert torch.equal(path[-1], drawn.action)
    assert len({float(state[0, 0, 0]) for state in drawn.latents}) == modes.num_latents(config, 5)


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
    logits, outcome = (x[..., grippers].double().numpy() for x in (plain.action, drawn.latents[2]))
    expected = gripper.log_prob(logits, outcome, config)
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
