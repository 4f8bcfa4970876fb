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
SCALE = np.array([1.0, 0.5, 0.0, 2.0, 0.0])  # of the level, by channel


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
        rows.append(conditionals((x_s[b] - mean)[:, list(SCORED)], config.correlation, step.std))
    return np.array(rows)


def conditionals(residual, rho, std):
    """log p(step h | steps before it) by the differences of the prefixes' joint densities, over channels."""
    n_steps = len(residual)
    correlation = (1 - rho) * np.eye(n_steps) + rho * np.ones((n_steps, n_steps))
    total = np.zeros(n_steps)
    for values, scale in zip(residual.T, SCALE[list(SCORED)], strict=True):
        covariance = (std * scale) ** 2 * correlation
        joint = [
            stats.multivariate_normal.logpdf(values[:n], cov=covariance[:n, :n])
            for n in range(1, n_steps + 1)
        ]
        total += np.diff([0.0, *joint])
    return total


def sampled(config, params, seed=0, batch=B, steps=K, k=None):
    eps0 = jax.random.normal(jax.random.PRNGKey(seed), (batch, H, A))
    k = jnp.ones(batch, jnp.int32) if k is None else k
    key = jax.random.PRNGKey(seed + 1)
    return k, flow.sample(make_predict(to_jax(params), jnp), eps0, key, k, config, steps, SCALE)


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_zero_noise_sampling_is_lerobots_sampler(steps):
    params = weights()
    eps0 = np.random.default_rng(1).normal(size=(B, H, A)).astype(np.float32)
    expected = lerobot_sampler(make_predict(jax.tree.map(np.float32, params), np), eps0, steps)
    actual = flow.deterministic(make_predict(to_jax(params), jnp), jnp.asarray(eps0), steps)
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_sampling_with_vanishing_noise_is_the_deterministic_sampler():
    params = weights()
    _, chunk = sampled(NoiseConfig(level=1e-30), params)
    expected = flow.deterministic(make_predict(to_jax(params), jnp), chunk.latents[:, 0], K)
    # Two compiled programs may round differently; bit for bit is the promise of the torch side.
    np.testing.assert_allclose(chunk.action, expected, atol=1e-6)


def test_terminal_noise_is_on_the_scored_channels_of_the_action_alone():
    params = weights()
    _, chunk = sampled(NoiseConfig(level=0.5), params)
    clean = flow.deterministic(make_predict(to_jax(params), jnp), chunk.latents[:, 0], K)
    noise_part = np.abs(np.asarray(chunk.action - clean))
    assert (noise_part[..., list(SCORED)] > 2e-5).all()
    assert (np.delete(noise_part, SCORED, axis=-1) < 1e-6).all()
    np.testing.assert_array_equal(chunk.latents[:, 2], chunk.action)


MODES = {"terminal": 0.2, "flow_sde": 0.7, "flow_cps": 0.4}
"""A noise level for every mode."""


def steps_of(mode, batch, steps):
    """A noised step for each row, every one the mode allows in turn."""
    return jnp.array(np.resize(noise.MODES[mode].noised_steps(steps), batch), jnp.int32)


def test_every_mode_is_tested():
    assert set(MODES) == set(noise.MODES)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize("replay", ["last", "full"])
@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("mode", MODES)
def test_log_prob_equals_the_float64_reference(mode, steps, replay, correlation):
    config = NoiseConfig(mode=mode, replay=replay, level=MODES[mode], correlation=correlation)
    k, chunk = sampled(config, weights(), steps=steps, k=steps_of(mode, B, steps))
    other = weights(seed=7)
    latents = np.asarray(chunk.latents)
    expected = reference_log_prob(other, latents, np.asarray(k), config, steps)
    actual = flow.log_prob(make_predict(to_jax(other), jnp), chunk.latents, k, config, steps, SCALE)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    with jax.enable_x64(True):
        exact = flow.log_prob(
            make_predict(to_jax(other, jnp.float64), jnp),
            jnp.asarray(latents, jnp.float64),
            k,
            config,
            steps,
            SCALE,
        )
        np.testing.assert_allclose(exact, expected, rtol=1e-11)


@pytest.mark.parametrize("replay", ["last", "full"])
@pytest.mark.parametrize("mode", MODES)
def test_scoring_a_sample_returns_the_samplers_own_density(mode, replay):
    params = weights()
    config = NoiseConfig(mode=mode, level=MODES[mode], replay=replay)
    k, chunk = sampled(config, params, k=steps_of(mode, B, K))
    again = flow.log_prob(make_predict(to_jax(params), jnp), chunk.latents, k, config, K, SCALE)
    np.testing.assert_allclose(again, chunk.log_prob, atol=2e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_executed_action_follows_from_the_latents(mode):
    params = weights()
    k = steps_of(mode, B, K)
    _, chunk = sampled(NoiseConfig(mode=mode, level=MODES[mode]), params, k=k)
    executed = flow.finish(make_predict(to_jax(params), jnp), chunk.latents, k, K)
    np.testing.assert_allclose(executed, chunk.action, atol=1e-6)


@pytest.mark.parametrize("replay", ["last", "full"])
@pytest.mark.parametrize("mode", MODES)
def test_gradient_equals_central_differences(mode, replay):
    config = NoiseConfig(mode=mode, replay=replay, level=MODES[mode])
    k, chunk = sampled(config, weights(), k=steps_of(mode, B, K))
    with jax.enable_x64(True):
        latents = jnp.asarray(np.asarray(chunk.latents), jnp.float64)
        params = to_jax(weights(seed=5), jnp.float64)
        direction = to_jax(weights(seed=6), jnp.float64)

        def total(p):
            return jnp.sum(flow.log_prob(make_predict(p, jnp), latents, k, config, K, SCALE))

        def moved(h):
            return total(jax.tree.map(lambda p, d: p + h * d, params, direction))

        gradient = jax.grad(total)(params)
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.vdot(g, d), gradient, direction)))
        h = 1e-5
        np.testing.assert_allclose(slope, (moved(h) - moved(-h)) / (2 * h), rtol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_the_density_integrates_to_one_and_is_that_of_the_samples(mode):
    """One step, one channel: p over a grid sums to 1, and fits 20,000 draws (Kolmogorov-Smirnov).

    At n = 20,000 and α = 1e-4 the test sees with 99 % power a shift of the mean by 4 % of the standard
    deviation, or a standard deviation wrong by 5 %.
    """
    draws, steps = 20_000, 4
    config = NoiseConfig(mode=mode, level=MODES[mode])
    k = int(noise.MODES[mode].noised_steps(steps)[-1])
    scale = np.array([1.0])
    eps0 = jnp.full((draws, 1, 1), 0.3)

    def predict(x, t):
        return jnp.tanh(0.7 * x + t[:, None, None] - 0.2)

    ks = jnp.full(draws, k, jnp.int32)
    chunk = flow.sample(predict, eps0, jax.random.PRNGKey(3), ks, config, steps, scale)
    x_s = np.sort(np.asarray(chunk.latents[:, 2, 0, 0], np.float64))
    grid = np.linspace(x_s.mean() - 9 * x_s.std(), x_s.mean() + 9 * x_s.std(), draws)
    latents = chunk.latents.at[:, 2, 0, 0].set(jnp.asarray(grid, jnp.float32))
    density = np.exp(np.asarray(flow.log_prob(predict, latents, ks, config, steps, scale)[:, 0], np.float64))
    cumulative = np.cumsum(density) * (grid[1] - grid[0])
    assert abs(cumulative[-1] - 1) < 1e-4
    statistic = stats.kstest(x_s, lambda x: np.interp(x, grid, cumulative))
    assert statistic.pvalue > 1e-4


def test_full_replay_sees_what_the_parameters_did_to_the_chain():
    params = to_jax(weights())
    k, chunk = sampled(NoiseConfig(level=0.3), weights())

    def gradient(replay):
        config = NoiseConfig(level=0.3, replay=replay)
        total = jax.grad(
            lambda p: jnp.sum(flow.log_prob(make_predict(p, jnp), chunk.latents, k, config, K, SCALE))
        )
        return np.concatenate([np.ravel(g) for g in jax.tree.leaves(total(params))])

    last, full = gradient("last"), gradient("full")
    cosine = last @ full / np.linalg.norm(last) / np.linalg.norm(full)
    assert 0.5 < cosine < 0.9999


def test_unscored_channels_do_not_enter_the_density():
    params = weights()
    k, chunk = sampled(NoiseConfig(level=0.1), params)
    unscored = jnp.array([dim for dim in range(A) if dim not in SCORED])
    changed = chunk.latents.at[:, 2, :, unscored].add(3.0)
    again = flow.log_prob(make_predict(to_jax(params), jnp), changed, k, NoiseConfig(level=0.1), K, SCALE)
    np.testing.assert_allclose(again, chunk.log_prob, atol=2e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_score_has_mean_zero(mode):
    batch, config = 20_000, NoiseConfig(mode=mode, level=MODES[mode], replay="full")
    k, chunk = sampled(config, weights(), batch=batch, k=steps_of(mode, batch, K))
    params = to_jax(weights())
    tangent = jnp.zeros((H, A)).at[0].set(1.0)

    def densities(bias):
        predict = make_predict({**params, "bias": bias}, jnp)
        return flow.log_prob(predict, chunk.latents, k, config, K, SCALE)[:, 0]

    score = np.asarray(jax.jvp(densities, (params["bias"],), (tangent,))[1], np.float64)
    assert score.std() > 0.1
    assert abs(score.mean()) < 4 * score.std() / math.sqrt(batch)


def test_score_function_identities_hold_by_monte_carlo():
    """E[∇log p] = 0 and E[f·∇log p] = ∇E[f], for the exact (full) gradient and f = Σ of the scored action."""
    batch, std = 20_000, 0.5
    config = NoiseConfig(replay="full", level=std)
    params = to_jax(weights())
    k, chunk = sampled(config, weights(), batch=batch)

    def densities(bias):
        predict = make_predict({**params, "bias": bias}, jnp)
        return flow.log_prob(predict, chunk.latents, k, config, K, SCALE)[:, 0]

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
    config, batch = NoiseConfig(level=0.3, correlation=correlation), 20_000
    k, chunk = sampled(config, weights(), batch=batch)
    per_step = np.asarray(chunk.log_prob, np.float64)
    analytic = np.asarray(flow.entropy(k, config, K, H, SCALE))[0]
    assert (abs(-per_step.mean(0) - analytic) < 4 * per_step.std(0) / math.sqrt(batch)).all()


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.95])
def test_the_noise_of_a_chunk_has_exactly_the_stated_covariance(correlation):
    batch, std = 20_000, 0.3
    config, params = NoiseConfig(level=std, correlation=correlation), weights()
    factor = noise.correlation_factor(config, H)
    expected = (1 - correlation) * np.eye(H) + correlation * np.ones((H, H))
    np.testing.assert_allclose(factor @ factor.T, expected, atol=1e-15)

    _, chunk = sampled(config, params, batch=batch)
    clean = flow.deterministic(make_predict(to_jax(params), jnp), chunk.latents[:, 0], K)
    z = np.asarray(chunk.action - clean, np.float64)[:, :, SCORED] / (
        std * SCALE[list(SCORED)]
    )  # [batch, H, channels]
    moments = np.einsum("bhc,bjd->hcjd", z, z) / batch
    stated = np.einsum("hj,cd->hcjd", expected, np.eye(len(SCORED)))
    # Var(z_i·z_j) = 1 + cov² ≤ 2 for unit variances (Isserlis).
    assert np.abs(moments - stated).max() < 5 * math.sqrt(2 / batch)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize("mode", MODES)
def test_kl_equals_the_closed_form_of_each_executed_prefix(mode, correlation):
    config = NoiseConfig(mode=mode, level=MODES[mode], correlation=correlation)
    k = steps_of(mode, B, K)
    rng = np.random.default_rng(0)
    mean, other = rng.normal(size=(2, B, H, A))
    with jax.enable_x64(True):
        steps = np.asarray(flow.kl(jnp.asarray(mean), jnp.asarray(other), k, config, K, SCALE))
    correlations = (1 - correlation) * np.eye(H) + correlation * np.ones((H, H))
    for b in range(B):
        std = noise.noised_step(config, int(k[b]), K).std
        for n in range(1, H + 1):
            expected = 0.0
            for c in SCORED:
                inverse = np.linalg.inv((std * SCALE[c]) ** 2 * correlations[:n, :n])
                shift = (mean - other)[b, :n, c]
                expected += 0.5 * shift @ inverse @ shift
            np.testing.assert_allclose(steps[b, :n].sum(), expected, rtol=1e-10)
