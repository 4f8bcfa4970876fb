"""The gripper's coin: its probabilities by enumeration, its draws, its gradients, and what an update does."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_recipe import make_recipe, make_update
from scipy import stats
from toy_chain import make_predict, to_jax, weights
from toy_run import toy_policy
from toy_update import CAPACITY, collect, critic, new_state, predict

from pirl_jax.likelihood import flow, gripper, modes
from pirl_jax.recipe import NoiseConfig

A = 5
CHANNELS = (2, 4)
SCALE = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
BERNOULLI = NoiseConfig(gripper="bernoulli", gripper_temperature=0.7)


def shared_probability(p, pattern):
    """Length of {u : [u < p_h] = g_h for all h}: the pattern is constant between the sorted p."""
    edges = np.sort(np.concatenate([[0.0], p, [1.0]]))
    middles = 0.5 * (edges[1:] + edges[:-1])
    fits = ((middles[:, None] < p) == pattern).all(1)
    return (edges[1:] - edges[:-1])[fits].sum()


def pattern_probability(p, pattern, independence=gripper.INDEPENDENCE):
    each = np.where(pattern, p, 1 - p).prod()
    return (1 - independence) * shared_probability(p, pattern) + independence * each


def all_patterns(H):
    return np.array(list(itertools.product([False, True], repeat=H)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def chunks(logits, patterns):
    """One row a pattern: the logits of one gripper [B, H, 1], and outcomes with these signs."""
    outcome = np.where(patterns, 1.0, -1.0) * gripper.EXECUTED_LOGIT
    return np.broadcast_to(logits, patterns.shape)[..., None], outcome[..., None]


@pytest.mark.parametrize("H", range(1, 7))
def test_every_prefix_of_every_pattern_has_its_exact_probability(H):
    rng = np.random.default_rng(H)
    logits, patterns = rng.normal(0, 2, H), all_patterns(H)
    p = sigmoid(logits / BERNOULLI.gripper_temperature)
    per_step = gripper.log_prob(*chunks(logits, patterns), BERNOULLI)
    expected = [[pattern_probability(p[:n], g[:n]) for n in range(1, H + 1)] for g in patterns]
    np.testing.assert_allclose(np.exp(np.cumsum(per_step, axis=1)), expected, rtol=1e-11)
    assert np.exp(per_step.sum(1)).sum() == pytest.approx(1.0, abs=1e-12)


def test_grippers_are_independent_of_each_other():
    rng = np.random.default_rng(0)
    logits, outcome = rng.normal(0, 2, (2, 7, 6, 2))
    both = gripper.log_prob(logits, outcome, BERNOULLI)
    single = [gripper.log_prob(logits[..., [g]], outcome[..., [g]], BERNOULLI) for g in (0, 1)]
    np.testing.assert_allclose(both, sum(single), rtol=1e-14)


def test_draws_have_the_stated_probabilities():
    """χ² over the 8 patterns of 3 steps, two grippers, 50,000 draws; at α = 1e-3 it sees an ε of 0.07."""
    draws, alpha = 50_000, 1e-3
    logits = np.array([[0.4, -1.0], [1.1, 0.3], [-0.5, 0.2]])
    uniforms = np.random.default_rng(5).uniform(size=(draws, 2, 5))
    outcome = gripper.draw(np.broadcast_to(logits, (draws, 3, 2)), BERNOULLI, uniforms)
    assert set(np.unique(outcome)) == {-gripper.EXECUTED_LOGIT, gripper.EXECUTED_LOGIT}
    patterns = all_patterns(3)
    for index in range(2):
        p = sigmoid(logits[:, index] / BERNOULLI.gripper_temperature)
        expected = np.array([pattern_probability(p, g) for g in patterns])
        counts = ((outcome[:, None, :, index] > 0) == patterns).all(-1).sum(0)
        statistic = (draws * (counts / draws - expected) ** 2 / expected).sum()
        threshold = stats.chi2.isf(alpha, 7)
        assert statistic < threshold
        other = np.array([pattern_probability(p, g, independence=0.07) for g in patterns])
        shift = draws * ((other - expected) ** 2 / expected).sum()
        assert stats.ncx2.sf(threshold, 7, shift) > 0.99


def test_the_learners_arithmetic_is_the_actors():
    """JAX in float32 against NumPy in float64, on logits from doubtful to saturated."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1, (400, 30, 2)) * rng.choice([0.3, 3.0, 30.0], (400, 1, 1))
    outcome = gripper.draw(logits, BERNOULLI, rng.uniform(size=(400, 2, 32)))
    expected = gripper.log_prob(logits, outcome, BERNOULLI)
    actual = gripper.log_prob(*(jnp.asarray(x, jnp.float32) for x in (logits, outcome)), BERNOULLI)
    assert actual.dtype == jnp.float32
    # A switch between two nearly equal logits is as ill-conditioned as their difference.
    assert np.quantile(np.abs(actual - expected), 0.999) < 2e-5
    assert np.abs(actual - expected).max() < 2e-3


@jax.jit
def values_and_gradients(logits, other, outcome):
    """Of density, divergence and entropy."""
    functions = (
        lambda x: gripper.log_prob(x, outcome, BERNOULLI).sum(),
        lambda x: gripper.kl(x, other, outcome, BERNOULLI).sum(),
        lambda x: gripper.entropy(x, outcome, BERNOULLI).sum(),
    )
    return [jax.value_and_grad(function)(logits) for function in functions]


@pytest.mark.parametrize("size", [0.0, 1e-6, 30.0, 1e3])
def test_no_pattern_is_impossible_and_every_gradient_finite(size):
    """Also where the shared draw cannot give it, where logits tie, and where float32's sigmoid is 0 or 1."""
    rng = np.random.default_rng(2)
    logits, outcome, other = rng.normal(size=(3, 64, 8, 2)).astype(np.float32)
    logits, other = (np.float32(size) * x for x in (logits, other))
    for value, gradient in values_and_gradients(logits, other, outcome):
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("replay", ["last", "full"])
def test_gradient_of_the_whole_density_equals_central_differences(replay):
    config, k = dataclasses.replace(BERNOULLI, level=0.3, replay=replay), jnp.ones(6, jnp.int32)
    chain = flow.Chain(config, 5, SCALE, CHANNELS)
    eps0 = jax.random.normal(jax.random.PRNGKey(0), (6, 4, A))
    keys = jax.random.split(jax.random.PRNGKey(1), 6)
    head = make_predict(to_jax(weights()), jnp)
    chunk = jax.jit(lambda eps0, keys: flow.sample(chain, head, eps0, keys, k))(eps0, keys)
    with jax.enable_x64(True):
        latents = jnp.asarray(np.asarray(chunk.latents), jnp.float64)
        params, direction = (to_jax(weights(seed), jnp.float64) for seed in (5, 6))

        def total(p):
            return flow.log_prob(chain, make_predict(p, jnp), latents, k).sum()

        @jax.jit
        def moved(params, direction, h):
            return total(jax.tree.map(lambda p, d: p + h * d, params, direction))

        @jax.jit
        def slope(params, direction):
            gradient = jax.grad(total)(params)
            return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))

        before, after = (float(moved(params, direction, h)) for h in (-1e-6, 1e-6))
        np.testing.assert_allclose(slope(params, direction), (after - before) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("H", [1, 3, 6])
def test_the_score_has_mean_zero(H):
    """Σ_g P(g)·∇log P(g) = 0 over all patterns, for each logit."""
    patterns = all_patterns(H)
    logits = np.random.default_rng(H).normal(0, 2, H)
    with jax.enable_x64(True):
        rows, outcome = (jnp.asarray(x) for x in chunks(logits, patterns))

        def densities(x):
            return gripper.log_prob(x, outcome, BERNOULLI).sum(1)

        scores = np.asarray(jax.jit(jax.grad(lambda x: densities(x).sum()))(rows))[..., 0]
        weighted = np.exp(jax.jit(densities)(rows))[:, None] * np.asarray(scores)
    assert np.abs(weighted).max() > 0.01
    np.testing.assert_allclose(weighted.sum(0), 0, atol=1e-14)


@pytest.mark.parametrize("H", [1, 2, 5])
def test_kl_and_entropy_have_the_prefixes_own_as_their_mean(H):
    patterns = all_patterns(H)
    rng = np.random.default_rng(H)
    logits, other_logits = rng.normal(0, 2, (2, H))
    (rows, outcome), (other, _) = chunks(logits, patterns), chunks(other_logits, patterns)
    log_p, log_q = (gripper.log_prob(x, outcome, BERNOULLI) for x in (rows, other))
    p = np.exp(log_p.sum(1))
    divergence = gripper.kl(rows, other, outcome, BERNOULLI)
    uncertainty = gripper.entropy(rows, outcome, BERNOULLI)
    assert (divergence >= 0).all()
    for n in range(1, H + 1):
        expected = (p * (log_p - log_q)[:, :n].sum(1)).sum()
        assert (p * divergence[:, :n].sum(1)).sum() == pytest.approx(expected, rel=1e-10)
        assert (p * uncertainty[:, :n].sum(1)).sum() == pytest.approx(-(p * log_p[:, :n].sum(1)).sum())
    np.testing.assert_array_equal(gripper.kl(rows, rows, outcome, BERNOULLI), 0)


def test_sampling_in_jax_scores_what_it_drew_and_leaves_the_rest_alone():
    config, k = dataclasses.replace(BERNOULLI, level=0.3), jnp.ones(500, jnp.int32)
    head, keys = make_predict(to_jax(weights()), jnp), jax.random.split(jax.random.PRNGKey(1), 500)
    eps0 = jax.random.normal(jax.random.PRNGKey(0), (500, 4, A))
    plain = flow.sample(flow.Chain(config, 5, SCALE), head, eps0, keys, k)
    drawn = flow.sample(flow.Chain(config, 5, SCALE, CHANNELS), head, eps0, keys, k)
    others = [channel for channel in range(A) if channel not in CHANNELS]
    np.testing.assert_array_equal(drawn.action[..., others], plain.action[..., others])
    np.testing.assert_array_equal(drawn.latents[:, 2], drawn.action)
    logits = np.asarray(plain.action, np.float64)[..., CHANNELS]  # no noise there: the mean
    closed = np.asarray(drawn.action)[..., CHANNELS] > 0
    assert abs(closed.mean() - sigmoid(logits / 0.7).mean()) < 0.03
    expected = gripper.log_prob(logits, np.asarray(drawn.action)[..., CHANNELS], config)
    np.testing.assert_allclose(drawn.log_prob - plain.log_prob, expected, atol=1e-3)


def test_what_cannot_be_drawn_is_refused():
    assert gripper.sampled_channels(NoiseConfig(), (9,)) == ()
    assert gripper.sampled_channels(BERNOULLI, (9,)) == (9,)
    with pytest.raises(ValueError, match="needs an action space whose gripper is a logit"):
        gripper.sampled_channels(BERNOULLI, ())
    modes.validate(BERNOULLI, 5)
    with pytest.raises(ValueError, match=r"noises the last step alone.*flow_sde.*Set noise.mode=terminal"):
        modes.validate(dataclasses.replace(BERNOULLI, mode="flow_sde"), 5)


def bernoulli_recipe(**changes):
    config = NoiseConfig(level=0.3, gripper="bernoulli")
    return make_recipe(noise=config, **{"lr": 1e-2, "minibatch_size": CAPACITY, "num_epochs": 1, **changes})


def chain_of(config):
    return flow.Chain(config.noise, 2, np.array([1.0, 0.0]), (1,))


def played(config, seed=3):
    """A batch of ``toy_update``'s policy whose second channel is a gripper, drawn in JAX."""
    params = new_state(config).params
    plain = make_recipe(config, noise=NoiseConfig(level=0.3))
    batch = collect(params, plain, CAPACITY, seed=seed)

    def head(x_t, t):
        return predict(params, batch.features, x_t, t, batch.proprio, batch.domain_id)

    keys = jax.random.split(jax.random.PRNGKey(seed), CAPACITY)
    chunk = flow.sample(chain_of(config), head, batch.latents[:, 0], keys, batch.denoise_step)
    return batch.replace(latents=chunk.latents, old_log_prob=chunk.log_prob)


def run_update(config, train_state, batch):
    return make_update(predict, critic, config, chain_of(config))(train_state, batch, CAPACITY)


def test_an_update_starts_at_a_ratio_of_one_and_moves_the_gripper_where_the_advantage_is():
    config = bernoulli_recipe(num_epochs=5)
    batch = played(config)
    closed = (batch.latents[:, 2, :, 1] > 0).any(1)
    assert 5 < int(closed.sum()) < CAPACITY - 5
    batch = batch.replace(advantages=jnp.where(closed, 1.0, -1.0))
    _, first = run_update(bernoulli_recipe(), new_state(config), batch)
    assert float(first["train/ratio_mean"]) == pytest.approx(1.0, abs=1e-4)
    after, _ = run_update(config, new_state(config), batch)
    assert float(after.params["bias"][1]) > float(new_state(config).params["bias"][1]) + 0.02


def test_the_grippers_divergence_and_entropy_reach_the_objective_and_the_log():
    config = bernoulli_recipe(reference_kl_coef=0.5, lr=0.0)
    batch = played(config)
    start = new_state(config)
    start = start.replace(reference=jax.tree.map(lambda x: x + 0.3, start.params))
    means, logits = [], []
    for params in (start.params, start.reference):

        def head(x_t, t, params=params):
            return predict(params, batch.features, x_t, t, batch.proprio, batch.domain_id)

        steps = flow.distribution(chain_of(config), head, batch.latents, batch.denoise_step)
        means.append(np.asarray(steps.mean[:, 0, :, 0], np.float64))
        logits.append(np.asarray(steps.gripper_logits, np.float64))
    outcome, mask = np.asarray(batch.latents[:, 2, :, 1:], np.float64), np.asarray(batch.step_mask)
    gaussian = 0.5 * ((means[0] - means[1]) / 0.3) ** 2
    coin = gripper.kl(*logits, outcome, config.noise)
    assert coin.mean() > 1e-3
    expected = (mask * (gaussian + coin)).sum(1).mean()
    entropy = (mask * gripper.entropy(logits[0], outcome, config.noise)).sum(1).mean()
    _, metrics = run_update(config, start, batch)
    assert float(metrics["train/reference_kl"]) == pytest.approx(expected, rel=1e-4)
    assert float(metrics["train/gripper_entropy"]) == pytest.approx(entropy, rel=1e-4)
    _, plain = run_update(bernoulli_recipe(lr=0.0), new_state(config), batch)
    assert "train/reference_kl" not in plain
    assert math.isclose(
        float(metrics["train/policy_loss"] - plain["train/policy_loss"]), 0.5 * expected, rel_tol=1e-3
    )
    with pytest.raises(ValueError, match="gripper is a logit"):
        flow.Chain.of(toy_policy(), config.noise)
