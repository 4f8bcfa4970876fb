"""A real encoder: scores are the same to the last bit, whether it has just run or its features were kept."""

import dataclasses

import jax
import numpy as np
import pytest
from test_log_prob import H, observations
from tiny import tiny_policy_config

from bridge.weights.export import policy_config
from pirl_jax.likelihood.modes import num_latents
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.rollout.encoded import Encoded, digest
from pirl_jax.rollout.episode import Episode
from pirl_jax.rollout.scoring import Scorer
from pirl_jax.training import compilations
from pirl_jax.xvla.init import init_params
from pirl_jax.xvla.policy import XVLAFlowPolicy

T, BLOCK = 6, 8


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kept_features_give_the_same_scores_to_the_last_bit(dtype):
    config, noise = policy_config(tiny_policy_config(dtype=dtype)), NoiseConfig(level=0.4)
    policy, rng = XVLAFlowPolicy(config), np.random.default_rng(1)
    trainable, frozen = policy.split(init_params(config, jax.random.key(0)))
    shape = T, num_latents(noise, policy.num_denoising_steps), H, policy.dim_action
    episode = Episode(
        observations=observations(),
        latents=rng.standard_normal(shape).astype(np.float32),
        denoise_step=np.ones(T, np.int32),
        log_prob=np.zeros((T, H), np.float32),
        executed=np.full(T, H, np.int32),
        reward=np.zeros(T, np.float32),
        version=np.array([1, 1, 1, 2, 2, 2]),
        feature_key=np.zeros(T, np.int64),
        terminated=False,
        truncated=True,
        success=False,
    )
    score, store = Scorer(policy, noise, (BLOCK,)), Encoded(1e9)
    played = {
        1: Behaviour(trainable, 0, 0.4),
        2: Behaviour(jax.tree.map(lambda p: 1.01 * p, trainable), 1, 0.3),
    }
    plain = score(frozen, episode, played)
    images, tokens = episode.observations.images, episode.observations.tokens.astype(np.int32)
    # As a server does it: the same program, on a block of observations of which some fill it.
    rows = np.minimum(np.arange(BLOCK), T - 1)
    features = jax.device_get(score.encode(frozen, images[rows], tokens[rows]))
    keys = store.put(features, [digest(images[t], tokens[t]) for t in range(T)])
    before = compilations.count()
    kept = score(frozen, dataclasses.replace(episode, feature_key=np.array(keys)), played, store)
    assert store.stats().held_bytes == 0
    np.testing.assert_array_equal(kept.old_log_prob, plain.old_log_prob)
    assert kept.old_log_prob.std() > 0
    jax.tree.map(np.testing.assert_array_equal, kept.features, plain.features)
    assert compilations.count() == before
