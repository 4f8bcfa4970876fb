"""The actor samples and scores in torch, the learner scores again in JAX: the ratio before any update."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from by_recipe import make_recipe, make_scorer
from lerobot.policies.xvla import XVLAPolicy
from quick import quick
from tiny import doubtful_gripper, tiny_policy_config

from bridge.plugin.noise_head import NoiseHead as TorchNoiseHead
from bridge.plugin.sampler import Sample, sample, use_float32_head
from bridge.weights.export import policy_config
from bridge.weights.state_dict import params_from_state, to_push
from pirl_jax.likelihood import noise_head
from pirl_jax.likelihood.modes import NOISE_HEAD, num_latents
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.behaviour import Behaviour, rounded
from pirl_jax.rollout.episode import Episode, Observations
from pirl_jax.xvla.images import IMAGENET_MEAN, IMAGENET_STD
from pirl_jax.xvla.policy import XVLAFlowPolicy

T, H = 6, 8
RATIO_TOLERANCE = 1e-4


def observations() -> Observations:
    rng = np.random.default_rng(0)
    return Observations(
        images=rng.integers(0, 256, (T + 1, 1, 3, 64, 64), dtype=np.uint8),
        tokens=rng.integers(0, 12, (T + 1, 10)),
        domain_id=np.zeros(T + 1, np.int64),
        proprio=rng.standard_normal((T + 1, 5)).astype(np.float32),
    )


def preprocessed(observed: Observations) -> dict[str, torch.Tensor]:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return {
        "observation.images.front": (torch.from_numpy(observed.images[:T, 0]) / 255 - mean) / std,
        "observation.state": torch.from_numpy(observed.proprio[:T]),
        "observation.language.tokens": torch.from_numpy(observed.tokens[:T]),
        "domain_id": torch.from_numpy(observed.domain_id[:T]),
    }


def played(drawn: Sample, step: int) -> Episode:
    """An episode of these chunks, some of which were cut short."""
    return Episode(
        observations=observations(),
        latents=np.ascontiguousarray(drawn.latents.numpy().swapaxes(0, 1)),
        denoise_step=np.full(T, step, np.int32),
        log_prob=drawn.log_prob.numpy(),
        executed=np.array([H, H, 3, H, 1, H], np.int32),
        reward=np.zeros(T, np.float32),
        version=np.ones(T, np.int32),
        feature_key=np.zeros(T, np.int64),
        terminated=False,
        truncated=True,
        success=False,
    )


NOISED = [
    ("terminal", 1, "last"),
    ("terminal", 1, "full"),
    ("flow_sde", 4, "last"),
    ("flow_sde", 4, "full"),
    ("flow_sde", 1, "last"),
    ("flow_sde", 1, "full"),
    ("flow_cps", 2, "last"),
    ("flow_cps", 2, "full"),
    ("flow_noise", 5, "last"),
]
EXACT = [(*noised, 0.0, "float32") for noised in NOISED]
WITH_ALL = [(*noised, 0.5, "bfloat16") for noised in NOISED]
OTHERS = [(*noised, *more) for noised in NOISED for more in ((0.0, "bfloat16"), (0.5, "float32"))]


@pytest.mark.parametrize(
    ("mode", "step", "replay", "correlation", "push_dtype"),
    quick([*EXACT, *WITH_ALL, *OTHERS], *EXACT[::2], *WITH_ALL[1::2]),
)
def test_the_ratio_before_the_first_update_is_one(mode, step, replay, correlation, push_dtype):
    torch.manual_seed(0)
    lerobot_config = tiny_policy_config()
    actor = XVLAPolicy(lerobot_config).eval()
    use_float32_head(actor)
    config = policy_config(lerobot_config)
    policy = XVLAFlowPolicy(config)
    # Copied: the arrays share the actor's memory, into which the push is about to be written.
    params = jax.tree.map(np.copy, params_from_state(actor.state_dict(), config))
    trainable, frozen = policy.split(jax.device_put(params))
    noise = NoiseConfig(mode, replay, level=0.4, correlation=correlation)
    trainable |= random_head(policy, noise)

    pushed = rounded(trainable, push_dtype)
    head = TorchNoiseHead.for_policy(actor, noise) if mode == "flow_noise" else None
    state = actor.state_dict()
    state |= {f"{NOISE_HEAD}.{key}": tensor for key, tensor in (head.state_dict() if head else {}).items()}
    for key, tensor in to_push(pushed).items():
        state[key].copy_(tensor)

    generator = torch.Generator().manual_seed(1)
    drawn = sample(actor, preprocessed(observations()), noise, step, generator, head)
    episode = played(drawn, step)
    score = make_scorer(policy, frozen, make_recipe(noise=noise, max_chunks=T))
    acted = Behaviour(trainable, 0, 0.4, push_dtype)
    assert np.expm1(score(episode, acted).log_prob_gap) < RATIO_TOLERANCE
    # Neither another level nor, where the push rounds, the exact weights are the policy that acted.
    assert np.expm1(score(episode, Behaviour(pushed, 0, 0.39)).log_prob_gap) > 10 * RATIO_TOLERANCE
    if push_dtype == "bfloat16":
        assert np.expm1(score(episode, Behaviour(trainable, 0, 0.4)).log_prob_gap) > 10 * RATIO_TOLERANCE


@pytest.mark.parametrize(
    ("mode", "step", "level"),
    [("terminal", 1, 0.4), ("flow_sde", 4, 0.4), ("flow_cps", 2, 0.8), ("flow_noise", 5, 0.4)],
)
def test_a_bfloat16_encoder_leaves_a_ratio_near_one(mode, step, level):
    """Rounding differs between torch and JAX; the tolerance is for that and for no other weights."""
    torch.manual_seed(0)
    lerobot_config = tiny_policy_config(dtype="bfloat16")
    actor = XVLAPolicy(lerobot_config).eval()
    use_float32_head(actor)
    config = policy_config(lerobot_config)
    policy = XVLAFlowPolicy(config)
    trainable, frozen = policy.split(jax.device_put(params_from_state(actor.state_dict(), config)))
    noise = NoiseConfig(mode, level=level)
    trainable |= random_head(policy, noise)
    head = TorchNoiseHead.for_policy(actor, noise) if mode == "flow_noise" else None
    if head:
        head.load_state_dict(
            {
                key.removeprefix(f"{NOISE_HEAD}."): value
                for key, value in to_push({NOISE_HEAD: trainable[NOISE_HEAD]}).items()
            }
        )
    drawn = sample(actor, preprocessed(observations()), noise, step, torch.Generator().manual_seed(1), head)
    score = make_scorer(policy, frozen, make_recipe(noise=noise, max_chunks=T))
    episode = played(drawn, step)
    scored = score(episode, Behaviour(trainable, 0, level))
    assert 1e-4 < scored.log_prob_gap < scored.gap_tolerance
    other = jax.tree.map(lambda x: 1.05 * x, trainable)
    assert score(episode, Behaviour(other, 0, level)).log_prob_gap > 2 * scored.gap_tolerance


def random_head(policy, noise):
    """A noise head that is far from where it starts, where the mode has one."""
    params = noise_head.init(policy, noise, jax.random.PRNGKey(3))
    if params:
        bound = params[NOISE_HEAD]["bound"]
        bound["weight"] = 0.5 * jax.random.normal(jax.random.PRNGKey(4), bound["weight"].shape)
    return params


def test_the_noise_head_is_the_same_network_in_torch_and_in_jax():
    lerobot_config = tiny_policy_config()
    actor = XVLAPolicy(lerobot_config)
    policy = XVLAFlowPolicy(policy_config(lerobot_config))
    noise = NoiseConfig("flow_noise", std_range=(0.3, 4.0), head_hidden_dims=(32, 16))
    params = random_head(policy, noise)
    head = TorchNoiseHead.for_policy(actor, noise)
    head.load_state_dict(
        {key.removeprefix(f"{NOISE_HEAD}."): value for key, value in to_push(params).items()}
    )
    rng = np.random.default_rng(0)
    summary = rng.standard_normal((50, policy.summary_dim)).astype(np.float32)
    t = rng.uniform(size=50).astype(np.float32)
    module = noise_head.NoiseHead(noise.std_range, noise.head_hidden_dims, policy.dim_action)
    ours = np.asarray(module.apply({"params": params[NOISE_HEAD]}, jnp.asarray(summary), jnp.asarray(t)))
    with torch.no_grad():
        theirs = head(torch.from_numpy(summary), torch.from_numpy(t)).numpy()
    assert ours.std() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("replay", ["last", "full"])
def test_the_ratio_is_one_with_a_drawn_gripper(replay):
    torch.manual_seed(0)
    lerobot_config = tiny_policy_config(action_mode="ee6d", max_state_dim=20)
    actor = XVLAPolicy(lerobot_config).eval()
    batch = preprocessed(observations())
    temperature = doubtful_gripper(actor, sample(actor, batch, NoiseConfig(), None).action, 9)
    noise = NoiseConfig(replay=replay, level=0.4, gripper="bernoulli", gripper_temperature=temperature)
    config = policy_config(lerobot_config)
    policy = XVLAFlowPolicy(config)
    trainable, frozen = policy.split(jax.device_put(params_from_state(actor.state_dict(), config)))
    drawn = sample(actor, batch, noise, 1, torch.Generator().manual_seed(1))
    closed = drawn.latents[2, ..., 9] > 0
    assert ((closed[:, 1:] != closed[:, :-1]).any(1)).any(), "no chunk in which the gripper moves"
    score = make_scorer(policy, frozen, make_recipe(noise=noise, max_chunks=T))
    episode, behaviour = played(drawn, 1), Behaviour(trainable, 0, 0.4)
    assert np.expm1(score(episode, behaviour).log_prob_gap) < RATIO_TOLERANCE
    # Not for want of a gripper term.
    silent = make_scorer(
        policy, frozen, make_recipe(noise=NoiseConfig(replay=replay, level=0.4), max_chunks=T)
    )
    assert silent(episode, behaviour).log_prob_gap > 0.1


@pytest.mark.parametrize(
    ("mode", "step", "counts"),
    [
        ("terminal", 1, False),
        ("flow_sde", 1, False),
        ("flow_sde", 3, True),
        ("flow_cps", 2, True),
        ("flow_noise", 5, True),
    ],
)
def test_noise_of_steps_beyond_the_executed_counts_where_it_reaches_what_was(mode, step, counts):
    """On the action itself it does not; in the middle of the chain the head mixes a chunk's steps."""
    noise = NoiseConfig(mode, level=0.1)
    recipe = make_recipe(noise=noise, max_chunks=T)
    config = policy_config(tiny_policy_config())
    policy = XVLAFlowPolicy(config)
    actor = XVLAPolicy(tiny_policy_config())
    trainable, frozen = policy.split(jax.device_put(params_from_state(actor.state_dict(), config)))
    trainable |= random_head(policy, noise)
    score = make_scorer(policy, frozen, recipe)
    episode = Episode(
        observations=observations(),
        latents=np.zeros((T, num_latents(noise, 5), H, 4), np.float32),
        denoise_step=np.full(T, step, np.int32),
        log_prob=np.zeros((T, H), np.float32),
        executed=np.full(T, 2, np.int32),
        reward=np.zeros(T, np.float32),
        version=np.ones(T, np.int32),
        feature_key=np.zeros(T, np.int64),
        terminated=True,
        truncated=False,
        success=True,
    )
    changed = episode.latents.copy()
    changed[:, -1, 2:] = 5.0
    behaviour = Behaviour(trainable, 0, 0.1)
    first = score(episode, behaviour)
    again = score(dataclasses.replace(episode, latents=changed), behaviour)
    assert np.array_equal(again.old_log_prob, first.old_log_prob) != counts
    assert first.step_mask.sum(1).tolist() == [H if counts else 2] * T
