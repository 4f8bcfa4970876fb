"""Chunk GAE against a float64 loop."""

import by_recipe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_recipe import make_batch, make_recipe, make_scorer
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_run import FROZEN, PARAMS, RECIPE, STD, episode, evaluate, fresh_state, toy_policy

from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.update import advantage


def reference(rewards, values, length, terminated, gamma, lam):
    """The textbook sum A_t = Σ_l (γλ)^l δ_{t+l}, one episode."""
    advantages = np.zeros(len(rewards))
    deltas = []
    for t in range(length):
        bootstrap = 0.0 if terminated and t == length - 1 else values[t + 1]
        deltas.append(rewards[t] + gamma * bootstrap - values[t])
    for t in range(length):
        advantages[t] = sum((gamma * lam) ** i * delta for i, delta in enumerate(deltas[t:]))
    targets = np.where(np.arange(len(rewards)) < length, advantages + values[:-1], 0.0)
    return advantages, targets


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 6), min_size=4, max_size=4),
    terminated=st.lists(st.booleans(), min_size=4, max_size=4),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
)
def test_gae_equals_the_float64_loop_and_never_reads_padding(seed, lengths, terminated, gamma, lam):
    rng = np.random.default_rng(seed)
    E, T = 4, 6
    rewards, values = rng.normal(size=(E, T)), rng.normal(size=(E, T + 1))
    expected = [
        reference(*args, gamma, lam) for args in zip(rewards, values, lengths, terminated, strict=True)
    ]
    for e, length in enumerate(lengths):
        rewards[e, length:] = np.nan
        # The final observation's value is read only when the episode was cut short.
        values[e, length + (not terminated[e] and length > 0) :] = np.nan
    with jax.enable_x64(True):
        advantages, targets = advantage.gae(
            jnp.asarray(rewards),
            jnp.asarray(values),
            jnp.asarray(lengths),
            jnp.asarray(terminated),
            gamma,
            lam,
        )
        np.testing.assert_allclose(advantages, [a for a, _ in expected], atol=1e-12)
        np.testing.assert_allclose(targets, [t for _, t in expected], atol=1e-12)


def test_truncation_bootstraps_and_termination_does_not():
    rewards, values = jnp.array([[1.0], [1.0]]), jnp.array([[0.0, 10.0], [0.0, 10.0]])
    advantages, _ = advantage.gae(rewards, values, jnp.array([1, 1]), jnp.array([True, False]), 0.5, 0.9)
    np.testing.assert_allclose(advantages[:, 0], [1.0, 6.0])


@pytest.mark.parametrize("bootstraps", [True, False])
def test_what_a_time_limit_is_worth_is_an_option(bootstraps):
    """Against the float64 loop, on a batch as an update makes it: one episode ended, one was cut short."""
    config = make_recipe(
        RECIPE, episodes_per_update=2, normalize=False, bootstrap_truncation=bootstraps, group_size=1
    )
    score = make_scorer(toy_policy(), FROZEN, config)
    episodes = [episode(seed, 3, terminated=seed == 0) for seed in (0, 1)]
    collected = [by_recipe.collected(score(item, Behaviour(PARAMS, 0, STD))) for item in episodes]
    batch, n = make_batch(collected, config, evaluate(config), fresh_state(config))
    features = [np.asarray(item.episode.features, np.float64) for item in collected]
    expected = [
        reference(item.reward, 0.7 * values, 3, item.terminated or not bootstraps, 0.9, 0.8)
        for item, values in zip(episodes, features, strict=True)
    ]
    assert n == 6
    np.testing.assert_allclose(batch.advantages[:6], np.ravel([a for a, _ in expected]), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(
        batch.value_targets[:6], np.ravel([t for _, t in expected]), rtol=1e-4, atol=1e-3
    )


def test_normalize_uses_the_valid_entries_alone():
    rng = np.random.default_rng(0)
    advantages = rng.normal(3.0, 5.0, size=(7, 5)).astype(np.float32)
    valid = rng.random((7, 5)) < 0.6
    dirty = np.where(valid, advantages, np.nan)
    result = np.asarray(advantage.normalize(jnp.asarray(dirty), jnp.float32(valid), 1e-3))
    expected = (advantages - advantages[valid].mean()) / advantages[valid].std()
    np.testing.assert_allclose(result[valid], expected[valid], atol=1e-5)
    assert (result[~valid] == 0).all()


def test_normalize_of_equal_or_of_no_advantages_is_zero():
    equal = advantage.normalize(jnp.full((2, 3), 0.25), jnp.ones((2, 3)), 1e-3)
    nothing = advantage.normalize(jnp.full((2, 3), jnp.nan), jnp.zeros((2, 3)), 1e-3)
    np.testing.assert_allclose(equal, 0.0, atol=1e-6)
    np.testing.assert_array_equal(nothing, 0.0)


def test_group_advantages_are_standard_scores_within_each_group():
    returns = np.random.default_rng(0).normal(size=(3, 5))
    with jax.enable_x64(True):
        actual = advantage.group_relative(jnp.asarray(returns), 1e-3)
    for row, group in zip(actual, returns, strict=True):
        np.testing.assert_allclose(row, (group - group.mean()) / group.std(), rtol=1e-12)
    assert not np.asarray(advantage.group_relative(jnp.ones((1, 4)), 1e-3)).any()


def test_rounding_among_equal_returns_is_no_advantage():
    """Eight times .3 has no exact mean in float32."""
    advantages = advantage.group_relative(jnp.full((1, 8), 0.3), 1e-3)
    assert float(jnp.abs(advantages).max()) < 1e-4


def test_a_small_spread_is_not_blown_up():
    small = jnp.asarray([[0.0, 2e-5]])
    np.testing.assert_allclose(advantage.normalize(small, jnp.ones((1, 2)), 1e-3), [[-0.01, 0.01]], rtol=1e-4)


def test_normalize_weighs_as_the_loss_does():
    """One success of 5 chunks and a failure of 27: their plain mean leaves a weighted one of +.95."""
    advantages = np.repeat([1.0, -0.2], [5, 27]).astype(np.float32)[None]
    weight = np.repeat([1 / 5, 1 / 27], [5, 27]).astype(np.float32)[None]
    result = np.asarray(advantage.normalize(jnp.asarray(advantages), jnp.asarray(weight), 1e-3), np.float64)
    assert np.average(result, weights=weight) == pytest.approx(0, abs=1e-5)
    assert np.average(result**2, weights=weight) == pytest.approx(1, abs=1e-5)
    plain = np.asarray(advantage.normalize(jnp.asarray(advantages), jnp.ones((1, 32)), 1e-3), np.float64)
    assert abs(np.average(plain, weights=weight[0][None])) > 0.9
