"""Sampling chains and their likelihoods, against NumPy in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pirl_jax import flow, noise
from pirl_jax.recipe import NoiseConfig

B, H, A, K = 6, 4, 5, 5
SCORED = (0, 1, 3)


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {"mix": 0.5 * rng.normal(size=(A, A)), "time": rng.normal(size=A), "bias": rng.normal(size=(H, A))}


def make_predict(params, xp):
    """A small nonlinear head, for ``xp`` numpy or jax.numpy."""
    return lambda x, t: xp.tanh(x @ params["mix"] + t[:, None, None] * params["time"] + params["bias"])


def to_jax(params, dtype=jnp.float32):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)


def lerobot_sampler(predict, eps0, steps):
    """``XVLAModel.generate_actions``, transcribed."""
    action = np.zeros_like(eps0)
    for i in range(steps, 0, -1):
        t = np.full(len(eps0), i / steps, eps0.dtype)
        x_t = eps0 * t[:, None, None] + action * (1 - t)[:, None, None]
        action = predict(x_t, t)
    return action


def reference_log_prob(params, latents, k, config, steps):
    """Density of x_s given the stored x_t, or, with ``replay=full``, given ε₀ alone."""
    predict = make_predict(params, np)
    eps0, x_t, x_s = np.moveaxis(latents.astype(np.float64), 1, 0)
    rows = []
    for b in range(len(k)):
        coefs = noise.schedule(config, steps, int(k[b]))
        if config.replay == "full":
            x = eps0[b : b + 1]
            for step in coefs[: steps - k[b]]:
                x = step.noise_coef * eps0[b] + step.action_coef * predict(x, np.array([step.t]))
        else:
            x = x_t[b : b + 1]
        step = coefs[steps - k[b]]
        mean = step.noise_coef * eps0[b] + step.action_coef * predict(x, np.array([step.t]))[0]
        rows.append(conditionals((x_s[b] - mean)[:, list(SCORED)] / step.std, config.correlation, step.std))
    return np.array(rows)


def conditionals(z, rho, std):
    """log p(step h | steps before it) of z·std, by the differences of the prefixes' joint densities."""
    covariance = std**2 * ((1 - rho) * np.eye(len(z)) + rho * np.ones((len(z), len(z))))
    joint = [0.0] + [
        sum(
            stats.multivariate_normal.logpdf(std * z[:n, c], cov=covariance[:n, :n])
            for c in range(z.shape[1])
        )
        for n in range(1, len(z) + 1)
    ]
    return np.diff(joint)


def sampled(config, params, seed=0, batch=B, steps=K, k=None):
    eps0 = jax.random.normal(jax.random.PRNGKey(seed), (batch, H, A))
    k = jnp.ones(batch, jnp.int32) if k is None else k
    key = jax.random.PRNGKey(seed + 1)
    return k, flow.sample(make_predict(to_jax(params), jnp), eps0, key, k, config, steps, SCORED)


@pytest.fixture
def mid_chain(monkeypatch):
    """A mode with noise inside the chain and on every step but the last, added as data."""

    def coefficients(k, K, config):
        t, s, eta = k / K, (k - 1) / K, config.std
        return noise.Step(t, s, s * math.sqrt(1 - eta**2), 1 - s, s * eta)

    modes = {**noise.MODES, "mid_chain": noise.Mode(lambda K: tuple(range(2, K + 1)), coefficients)}
    monkeypatch.setattr(noise, "MODES", modes)
    monkeypatch.setattr(flow, "MODES", modes)
    return "mid_chain"


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_zero_noise_sampling_is_lerobots_sampler(steps):
    params = weights()
    eps0 = np.random.default_rng(1).normal(size=(B, H, A)).astype(np.float32)
    expected = lerobot_sampler(make_predict(jax.tree.map(np.float32, params), np), eps0, steps)
    actual = flow.deterministic(make_predict(to_jax(params), jnp), jnp.asarray(eps0), steps)
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_sampling_with_vanishing_noise_is_the_deterministic_sampler():
    params = weights()
    _, chunk = sampled(NoiseConfig(std=1e-30), params)
    expected = flow.deterministic(make_predict(to_jax(params), jnp), chunk.latents[:, 0], K)
    # Two compiled programs may round differently; bit for bit is the promise of the torch side.
    np.testing.assert_allclose(chunk.action, expected, atol=1e-6)


def test_terminal_noise_is_on_the_scored_channels_of_the_action_alone():
    params = weights()
    _, chunk = sampled(NoiseConfig(std=0.5), params)
    clean = flow.deterministic(make_predict(to_jax(params), jnp), chunk.latents[:, 0], K)
    noise_part = np.abs(np.asarray(chunk.action - clean))
    assert (noise_part[..., list(SCORED)] > 1e-4).all()
    assert (np.delete(noise_part, SCORED, axis=-1) < 1e-6).all()
    np.testing.assert_array_equal(chunk.latents[:, 2], chunk.action)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize("replay", ["last", "full"])
@pytest.mark.parametrize("steps", [1, 5])
def test_log_prob_equals_the_float64_reference(replay, steps, correlation):
    config, params = NoiseConfig(replay=replay, std=0.2, correlation=correlation), weights()
    k, chunk = sampled(config, params, steps=steps)
    other = weights(seed=7)
    latents = np.asarray(chunk.latents)
    expected = reference_log_prob(other, latents, np.asarray(k), config, steps)
    actual = flow.log_prob(make_predict(to_jax(other), jnp), chunk.latents, k, config, steps, SCORED)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    with jax.enable_x64(True):
        exact = flow.log_prob(
            make_predict(to_jax(other, jnp.float64), jnp),
            jnp.asarray(latents, jnp.float64),
            k,
            config,
            steps,
            SCORED,
        )
        np.testing.assert_allclose(exact, expected, rtol=1e-12)


@pytest.mark.parametrize("replay", ["last", "full"])
def test_scoring_a_sample_returns_the_samplers_own_density(replay):
    params = weights()
    k, chunk = sampled(NoiseConfig(std=0.1), params)
    config = NoiseConfig(std=0.1, replay=replay)
    again = flow.log_prob(make_predict(to_jax(params), jnp), chunk.latents, k, config, K, SCORED)
    np.testing.assert_allclose(again, chunk.log_prob, atol=2e-5)


@pytest.mark.parametrize("replay", ["last", "full"])
def test_a_new_mode_is_one_entry_of_the_table(mid_chain, replay):
    config, params = NoiseConfig(mode=mid_chain, replay=replay, std=0.4), weights()
    k, chunk = sampled(config, params, k=jnp.array([2, 3, 4, 5, 2, 5], jnp.int32))
    again = flow.log_prob(make_predict(to_jax(params), jnp), chunk.latents, k, config, K, SCORED)
    np.testing.assert_allclose(again, chunk.log_prob, atol=2e-5)
    other = weights(seed=3)
    scored = flow.log_prob(make_predict(to_jax(other), jnp), chunk.latents, k, config, K, SCORED)
    expected = reference_log_prob(other, np.asarray(chunk.latents), np.asarray(k), config, K)
    np.testing.assert_allclose(scored, expected, rtol=2e-6, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("replay", ["last", "full"])
def test_gradient_equals_central_differences(replay):
    config = NoiseConfig(replay=replay, std=0.3)
    k, chunk = sampled(config, weights())
    with jax.enable_x64(True):
        latents = jnp.asarray(np.asarray(chunk.latents), jnp.float64)
        params = to_jax(weights(seed=5), jnp.float64)
        direction = to_jax(weights(seed=6), jnp.float64)

        def total(p):
            return jnp.sum(flow.log_prob(make_predict(p, jnp), latents, k, config, K, SCORED))

        def moved(h):
            return total(jax.tree.map(lambda p, d: p + h * d, params, direction))

        gradient = jax.grad(total)(params)
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.vdot(g, d), gradient, direction)))
        h = 1e-5
        np.testing.assert_allclose(slope, (moved(h) - moved(-h)) / (2 * h), rtol=1e-7)


def test_full_replay_sees_what_the_parameters_did_to_the_chain():
    params = to_jax(weights())
    k, chunk = sampled(NoiseConfig(std=0.3), weights())

    def gradient(replay):
        config = NoiseConfig(std=0.3, replay=replay)
        total = jax.grad(
            lambda p: jnp.sum(flow.log_prob(make_predict(p, jnp), chunk.latents, k, config, K, SCORED))
        )
        return np.concatenate([np.ravel(g) for g in jax.tree.leaves(total(params))])

    last, full = gradient("last"), gradient("full")
    cosine = last @ full / np.linalg.norm(last) / np.linalg.norm(full)
    assert 0.5 < cosine < 0.9999


def test_unscored_channels_do_not_enter_the_density():
    params = weights()
    k, chunk = sampled(NoiseConfig(std=0.1), params)
    unscored = jnp.array([dim for dim in range(A) if dim not in SCORED])
    changed = chunk.latents.at[:, 2, :, unscored].add(3.0)
    again = flow.log_prob(make_predict(to_jax(params), jnp), changed, k, NoiseConfig(std=0.1), K, SCORED)
    np.testing.assert_allclose(again, chunk.log_prob, atol=2e-5)


def test_score_function_identities_hold_by_monte_carlo():
    """E[∇log p] = 0 and E[f·∇log p] = ∇E[f], for the exact (full) gradient and f = Σ of the scored action."""
    batch, std = 20_000, 0.5
    config = NoiseConfig(replay="full", std=std)
    params = to_jax(weights())
    k, chunk = sampled(config, weights(), batch=batch)

    def densities(bias):
        predict = make_predict({**params, "bias": bias}, jnp)
        return flow.log_prob(predict, chunk.latents, k, config, K, SCORED)[:, 0]

    def mean_f(bias):
        actions = flow.deterministic(make_predict({**params, "bias": bias}, jnp), chunk.latents[:, 0], K)
        return jnp.mean(actions[:, 0, jnp.array(SCORED)].sum(-1))

    # One direction of parameter space is enough, and cheap: a forward derivative.
    tangent = jnp.zeros((H, A)).at[0].set(1.0)
    _, score = jax.jvp(densities, (params["bias"],), (tangent,))
    score = np.asarray(score, np.float64)
    assert abs(score.mean()) < 4 * score.std() / math.sqrt(batch)

    f = np.asarray(chunk.action[:, 0, list(SCORED)].sum(-1), np.float64)
    terms = (f - f.mean()) * score
    _, expected = jax.jvp(mean_f, (params["bias"],), (tangent,))
    assert abs(terms.mean() - float(expected)) < 4 * terms.std() / math.sqrt(batch)


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_entropy_is_the_mean_negative_density(correlation):
    config, batch = NoiseConfig(std=0.3, correlation=correlation), 20_000
    k, chunk = sampled(config, weights(), batch=batch)
    per_step = np.asarray(chunk.log_prob, np.float64)
    analytic = np.asarray(flow.entropy(k, config, K, H, len(SCORED)))[0]
    assert (abs(-per_step.mean(0) - analytic) < 4 * per_step.std(0) / math.sqrt(batch)).all()


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.95])
def test_the_noise_of_a_chunk_has_exactly_the_stated_covariance(correlation):
    batch, std = 20_000, 0.3
    config, params = NoiseConfig(std=std, correlation=correlation), weights()
    factor = noise.correlation_factor(config, H)
    expected = (1 - correlation) * np.eye(H) + correlation * np.ones((H, H))
    np.testing.assert_allclose(factor @ factor.T, expected, atol=1e-15)

    _, chunk = sampled(config, params, batch=batch)
    clean = flow.deterministic(make_predict(to_jax(params), jnp), chunk.latents[:, 0], K)
    z = np.asarray(chunk.action - clean, np.float64)[:, :, SCORED] / std  # [batch, H, channels]
    moments = np.einsum("bhc,bjd->hcjd", z, z) / batch
    stated = np.einsum("hj,cd->hcjd", expected, np.eye(len(SCORED)))
    # Var(z_i·z_j) = 1 + cov² ≤ 2 for unit variances (Isserlis).
    assert np.abs(moments - stated).max() < 5 * math.sqrt(2 / batch)
