"""What a policy server draws: by the question and the version alone, and as the learner scores it."""

import dataclasses
import functools
from unittest.mock import patch

import jax
import numpy as np
import pytest
import torch
from lerobot.lerobot_types import TransitionKey
from lerobot.policies.xvla import XVLAPolicy
from lerobot.policies.xvla.processor_xvla import (
    XVLAImageNetNormalizeProcessorStep,
    XVLAImageToFloatProcessorStep,
)
from quick import quick
from tiny import tiny_policy_config

from bridge.weights.export import policy_config
from bridge.weights.state_dict import params_from_state
from pirl_jax.likelihood import noise_head
from pirl_jax.likelihood.modes import MODES
from pirl_jax.recipe import NoiseConfig, ServeConfig
from pirl_jax.rollout.behaviour import Behaviour, as_pushed
from pirl_jax.rollout.episode import Episode, Observations
from pirl_jax.rollout.scoring import Scorer
from pirl_jax.serving.acting import Asked
from pirl_jax.serving.service import PolicyService, batch_sizes
from pirl_jax.training import compilations
from pirl_jax.xvla.policy import XVLAFlowPolicy

LEVELS = {"terminal": 0.4, "flow_sde": 0.4, "flow_cps": 0.8, "flow_noise": 0.4}
GAP = 1e-3
"""Nats a chunk between actor and learner where features are reused."""


@functools.cache
def compiled(mode, dtype):
    """A service with a random tiny policy; its programs take most of the time of these tests."""
    torch.manual_seed(0)
    settings = tiny_policy_config(dtype=dtype)
    stock = XVLAPolicy(settings)
    config = policy_config(settings)
    policy = XVLAFlowPolicy(config)
    trainable, frozen = policy.split(jax.device_put(params_from_state(stock.state_dict(), config)))
    noise = NoiseConfig(mode, level=LEVELS[mode], correlation=0.3, head_hidden_dims=(6,))
    trainable = jax.tree.map(lambda leaf: leaf.astype(np.float32), trainable)
    trainable |= noise_head.init(policy, noise, jax.random.PRNGKey(3))
    most = 1 if dtype == "bfloat16" else 4 if mode == "terminal" else 2
    service = PolicyService(policy, noise, ServeConfig(max_batch=most))
    service.compile(frozen, trainable, (1, 3, 64, 64), 10, config.dim_proprio)
    service.begin(frozen)
    return service, policy, frozen, trainable, noise


def served(mode="terminal", dtype="float32", push="float32"):
    """A service whose version 1 acts; and its encoder, behaviour and recipe."""
    service, policy, frozen, trainable, noise = compiled(mode, dtype)
    behaviour = Behaviour(trainable, 0, LEVELS[mode], push)
    service.publish(9, 1, as_pushed(behaviour))
    return service, policy, frozen, behaviour, noise


def questions(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Asked(
            images=rng.integers(0, 256, (1, 3, 64, 64), np.uint8),
            tokens=rng.integers(0, 12, 10),
            proprio=rng.standard_normal(5).astype(np.float32),
            domain_id=int(rng.integers(2)),
            noise_key=int(rng.integers(1 << 62)),
            chunk=i,
        )
        for i in range(count)
    ]


def as_episode(asked, acted):
    """An episode whose chunks these were; its last observation is the first one."""
    final = [*asked, asked[0]]
    H = len(acted[0].log_prob)
    return Episode(
        observations=Observations(
            images=np.stack([each.images for each in final]),
            tokens=np.stack([each.tokens for each in final]),
            domain_id=np.array([each.domain_id for each in final]),
            proprio=np.stack([each.proprio for each in final]),
        ),
        latents=np.stack([each.latents for each in acted]),
        denoise_step=np.array([each.denoise_step for each in acted], np.int32),
        log_prob=np.stack([each.log_prob for each in acted]),
        executed=np.full(len(acted), H, np.int32),
        reward=np.zeros(len(acted), np.float32),
        version=np.array([each.version for each in acted], np.int32),
        feature_key=np.array([each.feature_key for each in acted], np.int64),
        terminated=True,
        truncated=False,
        success=True,
    )


@pytest.mark.parametrize("mode", quick(MODES, "terminal", "flow_noise"))
def test_a_row_depends_on_no_other_row(mode):
    service, *_ = served(mode)
    asked = questions(service.acting.sizes[-1])
    together = service.acting(asked)
    turned = service.acting(asked[::-1])[::-1]
    alone = [service.acting([each])[0] for each in asked]
    fewer = service.acting(asked[:3])  # of four: filled up
    for others in (turned, alone, fewer):
        for one, other in zip(together, others):
            np.testing.assert_allclose(one.action, other.action, atol=1e-5)
            np.testing.assert_allclose(one.latents, other.latents, atol=1e-5)
            np.testing.assert_allclose(one.log_prob, other.log_prob, atol=1e-3)
            assert one.denoise_step == other.denoise_step


@pytest.mark.parametrize("push", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("mode", "dtype"),
    quick(
        [(mode, dtype) for mode in MODES for dtype in ("float32", "bfloat16")],
        *[("terminal", "float32"), ("flow_sde", "bfloat16"), ("flow_noise", "float32")],
    ),
)
def test_the_learner_scores_what_the_server_drew_as_the_server_did(mode, dtype, push):
    """One network and one set of features on both sides, whatever they were rounded to."""
    service, policy, frozen, behaviour, noise = served(mode, dtype, push)
    asked = questions(service.acting.sizes[-1])
    episode = as_episode(asked, service.acting(asked))
    scored = Scorer(policy, noise, (2,))(frozen, episode, {1: behaviour}, service.encoded)
    assert scored.log_prob_gap < GAP
    assert np.abs(scored.old_log_prob).max() > 1


def test_noise_follows_from_episode_and_chunk():
    service, *_ = served("flow_sde")
    first, *_ = questions(1)
    chunks = [Asked(**{**vars(first), "chunk": i}) for i in range(60)]
    acted = [service.acting([each])[0] for each in chunks]
    again = service.acting([chunks[5]])[0]
    np.testing.assert_array_equal(again.latents, acted[5].latents)
    starts = np.stack([each.latents[0] for each in acted])
    assert len(np.unique(starts.round(6))) == starts.size
    assert abs(starts.mean()) < 0.1
    assert abs(starts.std() - 1) < 0.1
    steps = [each.denoise_step for each in acted]
    assert set(steps) == set(MODES["flow_sde"].first_steps(5))


def test_the_newest_version_acts_and_says_so():
    service, _, _, behaviour, _ = served()
    asked = questions(1)
    before = service.acting(asked)[0]
    assert not service.acting.wait_for(lambda run, version: version == 2, 0.01)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, behaviour.params)
    service.publish(9, 2, as_pushed(Behaviour(moved, 1, 0.2)))
    assert service.acting.wait_for(lambda run, version: (run, version) == (9, 2), 0.01)
    after = service.acting(asked)[0]
    assert (before.version, after.version, after.run) == (1, 2, 9)
    np.testing.assert_array_equal(before.latents[0], after.latents[0])  # the noise is the episode's
    assert np.abs(before.action - after.action).max() > 1e-3


def test_nothing_is_compiled_once_it_serves():
    service, *_ = served()
    service.acting(questions(1))
    before = compilations.count()
    for count in (1, 2, 3, 4):
        service.acting(questions(count, seed=count))
    assert compilations.count() == before


def test_what_cannot_be_answered_is_refused():
    service, *_ = served()
    with pytest.raises(ValueError, match="5 observations"):
        service.acting(questions(5))


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, (1,)), (4, (1, 2, 4)), (6, (1, 2, 4, 6)), (33, (1, 2, 4, 8, 16, 32, 33))]
)
def test_there_is_a_program_for_each_power_of_two(most, sizes):
    assert batch_sizes(most) == sizes


@pytest.mark.parametrize("mode", MODES)
def test_what_is_evaluated_is_drawn_as_lerobot_does_among_rows_that_are_not(mode):
    """One batch of both kinds: LeRobot's own chain from the same first noise, and neighbours as ever."""
    service, *_ = served(mode)
    asked = questions(2)
    mixed = [dataclasses.replace(each, noise_free=bool(i % 2)) for i, each in enumerate(asked)]
    before = service.encoded.stats().held_bytes
    acted = service.acting(mixed)
    between = service.encoded.stats().held_bytes
    noisy = service.acting(asked)
    after = service.encoded.stats().held_bytes
    assert after - between == 2 * (between - before) > 0  # no learner asks for what was evaluated
    torch.manual_seed(0)
    stock = XVLAPolicy(tiny_policy_config())
    stock.eval()
    for i, (each, row) in enumerate(zip(mixed, acted)):
        if not each.noise_free:
            for name in ("action", "latents", "log_prob"):
                np.testing.assert_allclose(getattr(row, name), getattr(noisy[i], name), atol=1e-3)
            assert row.denoise_step > 0
            assert row.feature_key
            continue
        assert (row.denoise_step, row.feature_key) == (0, 0)
        np.testing.assert_array_equal(row.log_prob, 0)
        np.testing.assert_array_equal(row.latents[0], noisy[i].latents[0])  # the first noise is the key's
        first = torch.from_numpy(row.latents[:1])
        with torch.no_grad(), patch.object(torch, "randn", return_value=first):
            expected = stock.predict_action_chunk(_as_batch(each))[0].numpy()
        np.testing.assert_allclose(row.action, expected, atol=1e-5)
        assert np.abs(row.action - noisy[i].action).max() > 1e-3


def _as_batch(asked):
    """What LeRobot's processors of an X-VLA make of an observation."""
    observation = {
        "observation.images.front": torch.from_numpy(asked.images),
        "observation.state": torch.from_numpy(asked.proprio)[None],
        "observation.language.tokens": torch.from_numpy(asked.tokens)[None],
        "domain_id": torch.tensor([asked.domain_id]),
    }
    for step in (XVLAImageToFloatProcessorStep(), XVLAImageNetNormalizeProcessorStep()):
        observation = step({TransitionKey.OBSERVATION: observation})[TransitionKey.OBSERVATION]
    return observation
