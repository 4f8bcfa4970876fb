"""Sampling chains and their likelihoods, against NumPy in float64."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from toy_chain import (
    MODES,
    REPLAYS,
    SCALE,
    SCORED,
    A,
    B,
    H,
    K,
    conditionals,
    correlations,
    make_predict,
    make_spread,
    steps_of,
    to_jax,
    weights,
)

from pirl_jax.likelihood import flow, modes
from pirl_jax.recipe import NoiseConfig


def log_prob(params, latents, k, config, steps, level=None):
    heads = make_predict(params, jnp), make_spread(params, jnp)
    return flow.log_prob(flow.Chain(config, steps, SCALE), heads[0], latents, k, level, heads[1])


def clean_action(params, eps0, steps=K):
    return flow.deterministic(flow.Chain(NoiseConfig(), steps, SCALE), make_predict(params, jnp), eps0)


def lerobot_sampler(predict, eps0, steps):
    """``XVLAModel.generate_actions``, transcribed."""
    action = np.zeros_like(eps0)
    for i in range(steps, 0, -1):
        t = np.full(len(eps0), i / steps, eps0.dtype)
        x_t = eps0 * t[:, None, None] + action * (1 - t)[:, None, None]
        action = predict(x_t, t)
    return action


@functools.cache
def transition(mode, level, k, steps):
    return modes.noised_step(NoiseConfig(mode=mode, level=level), k, steps)


def reference_steps(params, latents, k, config, steps, level=None):
    """Residuals of the noised steps [B, M, H, scored] and their standard deviations [B, M, scored]."""
    latents, k = np.asarray(latents, np.float64), np.asarray(k)
    level = np.full(len(k), config.level) if level is None else np.asarray(level, np.float64)
    predict, spread, scored = make_predict(params, np), make_spread(params, np), list(SCORED)
    eps0 = latents[:, 0]
    if config.mode == "flow_noise":
        transitions = [(k - m, latents[:, m], latents[:, m + 1]) for m in range(steps)]
    else:
        transitions = [(k, latents[:, 1], latents[:, 2])]
    residuals, deviations = [], []
    for index, x_t, x_s in transitions:
        rows = [transition(config.mode, *row, steps) for row in zip(level, index.tolist(), strict=True)]
        t, noise_coef, action_coef, std = (
            np.array([getattr(row, name) for row in rows])
            for name in ("t", "noise_coef", "action_coef", "std")
        )
        if config.replay == "full":
            x_t = eps0
            for i in range(steps, 1, -1):
                step = modes.anchored_step(i, steps)
                following = step.noise_coef * eps0 + step.action_coef * predict(x_t, np.full(len(k), step.t))
                x_t = np.where((i > index)[:, None, None], following, x_t)
        mean = noise_coef[:, None, None] * eps0 + action_coef[:, None, None] * predict(x_t, t)
        deviation = std[:, None] * SCALE[scored]
        if config.mode == "flow_noise":
            deviation = deviation * np.exp(spread(t)[:, scored])
        residuals.append((x_s - mean)[..., scored])
        deviations.append(deviation)
    return np.stack(residuals, 1), np.stack(deviations, 1)


def reference_log_prob(params, latents, k, config, steps, level=None):
    """log p(chunk step h | steps before it)."""
    return conditionals(*reference_steps(params, latents, k, config, steps, level), config.correlation)


def sampled(config, params, seed=0, batch=B, steps=K, k=None, level=None):
    eps0 = jax.random.normal(jax.random.PRNGKey(seed), (batch, H, A))
    k = steps_of(config.mode, batch, steps) if k is None else k
    keys, params = jax.random.split(jax.random.PRNGKey(seed + 1), batch), to_jax(params)
    heads = make_predict(params, jnp), make_spread(params, jnp)
    return k, flow.sample(flow.Chain(config, steps, SCALE), heads[0], eps0, keys, k, level, heads[1])


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_zero_noise_sampling_is_lerobots_sampler(steps):
    params = weights()
    eps0 = np.random.default_rng(1).normal(size=(B, H, A)).astype(np.float32)
    expected = lerobot_sampler(make_predict(jax.tree.map(np.float32, params), np), eps0, steps)
    actual = clean_action(to_jax(params), jnp.asarray(eps0), steps)
    np.testing.assert_allclose(actual, expected, atol=2e-6)


REPLAYS.append(("flow_noise", "last"))


def test_every_mode_is_tested():
    assert set(MODES) == set(modes.MODES)


@pytest.mark.parametrize("mode", MODES)
def test_sampling_with_vanishing_noise_is_the_deterministic_sampler(mode):
    params = weights()
    _, chunk = sampled(NoiseConfig(mode=mode, level=1e-12), params)
    expected = clean_action(to_jax(params), chunk.latents[:, 0])
    # Two compiled programs may round differently; bit for bit is the promise of the torch side.
    np.testing.assert_allclose(chunk.action, expected, atol=1e-6)


def test_terminal_noise_is_on_the_scored_channels_of_the_action_alone():
    params = weights()
    _, chunk = sampled(NoiseConfig(level=0.5), params)
    clean = clean_action(to_jax(params), chunk.latents[:, 0])
    noise_part = np.abs(np.asarray(chunk.action - clean))
    assert (noise_part[..., list(SCORED)] > 2e-5).all()
    assert (np.delete(noise_part, SCORED, axis=-1) < 1e-6).all()
    np.testing.assert_array_equal(chunk.latents[:, 2], chunk.action)


def test_flow_noise_keeps_the_whole_chain():
    _, chunk = sampled(NoiseConfig(mode="flow_noise", level=0.3), weights())
    assert chunk.latents.shape == (B, K + 1, H, A)
    np.testing.assert_array_equal(chunk.latents[:, -1], chunk.action)
    assert len(np.unique(np.asarray(chunk.latents[..., 0]))) == B * (K + 1) * H


@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize(("mode", "replay"), REPLAYS)
@pytest.mark.parametrize("steps", [2, 5])
def test_log_prob_equals_the_float64_reference(steps, mode, replay, correlation):
    """At a level of its own for each row, as episodes of different versions have under a schedule."""
    config = NoiseConfig(mode=mode, replay=replay, level=MODES[mode], correlation=correlation)
    level = jnp.linspace(0.5, 1.0, B) * config.level
    k, chunk = sampled(config, weights(), steps=steps, level=level)
    other = weights(seed=7)
    expected = reference_log_prob(other, chunk.latents, k, config, steps, level)
    actual = log_prob(to_jax(other), chunk.latents, k, config, steps, level=level)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    with jax.enable_x64(True):
        latents, levels = (jnp.asarray(np.asarray(x), jnp.float64) for x in (chunk.latents, level))
        exact = log_prob(to_jax(other, jnp.float64), latents, k, config, steps, level=levels)
        np.testing.assert_allclose(exact, expected, rtol=1e-11)


@pytest.mark.parametrize("mode", MODES)
def test_without_levels_of_their_own_rows_have_the_configs(mode):
    config = NoiseConfig(mode=mode, level=MODES[mode])
    k, chunk = sampled(config, weights())
    implicit, explicit = (
        log_prob(to_jax(weights()), chunk.latents, k, config, K, level=level)
        for level in (None, jnp.full(B, config.level))
    )
    np.testing.assert_array_equal(implicit, explicit)


@pytest.mark.parametrize(("mode", "replay"), REPLAYS)
def test_scoring_a_sample_returns_the_samplers_own_density(mode, replay):
    params = weights()
    config = NoiseConfig(mode=mode, level=MODES[mode], replay=replay)
    level = jnp.linspace(0.5, 1.0, B) * config.level
    k, chunk = sampled(config, params, level=level)
    again = log_prob(to_jax(params), chunk.latents, k, config, K, level=level)
    np.testing.assert_allclose(again, chunk.log_prob, rtol=1e-6, atol=3e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_executed_action_follows_from_the_latents(mode):
    config = NoiseConfig(mode=mode, level=MODES[mode])
    k, chunk = sampled(config, weights())
    predict = make_predict(to_jax(weights()), jnp)
    executed = flow.finish(flow.Chain(config, K, SCALE), predict, chunk.latents, k)
    np.testing.assert_allclose(executed, chunk.action, atol=1e-6)


def test_a_learned_deviation_without_its_head_is_refused():
    k = steps_of("flow_noise", B, K)
    with pytest.raises(ValueError, match="'flow_noise' learns its standard deviation: give its noise head"):
        flow.stds(flow.Chain(NoiseConfig(mode="flow_noise"), K, SCALE), k, jnp.ones(B))


@pytest.mark.parametrize(("mode", "replay"), REPLAYS)
def test_gradient_equals_central_differences(mode, replay):
    """In a direction in which every parameter changes, those of the noise head too."""
    config = NoiseConfig(mode=mode, replay=replay, level=MODES[mode])
    k, chunk = sampled(config, weights())
    with jax.enable_x64(True):
        latents = jnp.asarray(np.asarray(chunk.latents), jnp.float64)
        params = to_jax(weights(seed=5), jnp.float64)
        direction = to_jax(weights(seed=6), jnp.float64)

        def total(p):
            return jnp.sum(log_prob(p, latents, k, config, K))

        def moved(h):
            return total(jax.tree.map(lambda p, d: p + h * d, params, direction))

        gradient = jax.grad(total)(params)
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.vdot(g, d), gradient, direction)))
        h = 1e-5
        np.testing.assert_allclose(slope, (moved(h) - moved(-h)) / (2 * h), rtol=1e-7)
        assert bool(jnp.any(gradient["log_std"])) == (mode == "flow_noise")


def test_the_backward_pass_of_many_steps_keeps_their_states_alone():
    """No activation of the head is among what the forward pass saves for the gradient."""
    config, width, latents = NoiseConfig(mode="flow_noise", level=0.2), 977, jnp.zeros((B, K + 1, H, A))

    def wide(params, x, t):
        hidden = jnp.tanh(x @ jnp.ones((A, width)) * params + t[:, None, None])
        return jnp.mean(hidden, -1, keepdims=True) + x

    def total(params):
        spread = make_spread(to_jax(weights()), jnp)
        k = steps_of("flow_noise", B, K)
        predict = lambda x, t: wide(params, x, t)  # noqa: E731
        return flow.log_prob(flow.Chain(config, K, SCALE), predict, latents, k, log_multiplier=spread).sum()

    _, pullback = jax.vjp(total, jnp.float32(0.5))
    saved = [x.shape for x in jax.tree.leaves(pullback) if hasattr(x, "shape")]
    assert saved
    assert not any(len(shape) > 2 and width in shape for shape in saved), saved


@pytest.mark.parametrize("mode", MODES)
def test_the_density_integrates_to_one_and_is_that_of_the_samples(mode):
    """One channel: p over a grid sums to 1, and fits 20,000 draws (Kolmogorov-Smirnov).

    A chain of two noised steps has a grid in two dimensions, and its states are compared one by one. At
    n = 20,000 and α = 1e-4 the test sees with 99 % power a shift of the mean by 4 % of the standard
    deviation, or a standard deviation wrong by 5 %.
    """
    draws, steps = 20_000, 2 if mode == "flow_noise" else 4
    config = NoiseConfig(mode=mode, level=MODES[mode])
    k = modes.MODES[mode].first_steps(steps)[-1]
    M = modes.MODES[mode].num_noised(steps)
    chain = flow.Chain(config, steps, np.array([1.0]))

    def predict(x, t):
        return jnp.tanh(0.7 * x + t[:, None, None] - 0.2)

    def spread(t):
        return 0.6 * t[:, None] - 0.4

    def steps_k(n):
        return jnp.full(n, k, jnp.int32)

    eps0 = jnp.full((draws, 1, 1), 0.3)
    keys = jax.random.split(jax.random.PRNGKey(3), draws)
    chunk = flow.sample(chain, predict, eps0, keys, steps_k(draws), log_multiplier=spread)
    outcomes = np.asarray(chunk.latents[:, -M:, 0, 0], np.float64)
    points = draws if M == 1 else 500
    axes = [np.linspace(x.mean() - 9 * x.std(), x.mean() + 9 * x.std(), points) for x in outcomes.T]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, M)
    latents = jnp.broadcast_to(chunk.latents[:1], (len(grid), *chunk.latents.shape[1:]))
    latents = latents.at[:, -M:, 0, 0].set(jnp.asarray(grid, jnp.float32))
    density = flow.log_prob(chain, predict, latents, steps_k(len(grid)), log_multiplier=spread)
    density = np.exp(np.asarray(density[:, 0], np.float64)).reshape([points] * M)
    for axis, (x, draw) in enumerate(zip(axes, outcomes.T, strict=True)):
        others = [other for other in range(M) if other != axis]
        cells = np.prod([axes[other][1] - axes[other][0] for other in others]) * (x[1] - x[0])
        marginal = density.sum(axis=tuple(others)) * cells
        cumulative = np.cumsum(marginal) - 0.5 * marginal
        assert abs(cumulative[-1] - 1) < 1e-4
        statistic = stats.kstest(draw, lambda v, x=x, c=cumulative: np.interp(v, x, c))
        assert statistic.pvalue > 1e-4


def test_full_replay_sees_what_the_parameters_did_to_the_chain():
    params = to_jax(weights())
    k, chunk = sampled(NoiseConfig(level=0.3), weights())

    def gradient(replay):
        config = NoiseConfig(level=0.3, replay=replay)
        total = jax.grad(lambda p: jnp.sum(log_prob(p, chunk.latents, k, config, K)))
        return np.concatenate([np.ravel(g) for g in jax.tree.leaves(total(params))])

    last, full = gradient("last"), gradient("full")
    cosine = last @ full / np.linalg.norm(last) / np.linalg.norm(full)
    assert 0.5 < cosine < 0.9999


def test_unscored_channels_do_not_enter_the_density():
    params = weights()
    k, chunk = sampled(NoiseConfig(level=0.1), params)
    unscored = jnp.array([dim for dim in range(A) if dim not in SCORED])
    changed = chunk.latents.at[:, 2, :, unscored].add(3.0)
    again = log_prob(to_jax(params), changed, k, NoiseConfig(level=0.1), K)
    np.testing.assert_allclose(again, chunk.log_prob, atol=2e-5)


@pytest.mark.parametrize(
    ("mode", "name"), [*((mode, "bias") for mode in MODES), ("flow_noise", "log_std"), ("flow_noise", "mix")]
)
def test_the_score_has_mean_zero(mode, name):
    replay = "last" if mode == "flow_noise" else "full"  # either way the exact gradient
    batch, config = 20_000, NoiseConfig(mode=mode, level=MODES[mode], replay=replay)
    k, chunk = sampled(config, weights(), batch=batch)
    params = to_jax(weights())
    tangent = jnp.zeros_like(params[name]).at[0].set(1.0)

    def densities(values):
        return log_prob({**params, name: values}, chunk.latents, k, config, K)[:, 0]

    score = np.asarray(jax.jvp(densities, (params[name],), (tangent,))[1], np.float64)
    assert score.std() > 0.1
    assert abs(score.mean()) < 4 * score.std() / math.sqrt(batch)


def test_score_function_identities_hold_by_monte_carlo():
    """E[∇log p] = 0 and E[f·∇log p] = ∇E[f], for the exact (full) gradient and f = Σ of the scored action."""
    batch, std = 20_000, 0.5
    config = NoiseConfig(replay="full", level=std)
    params = to_jax(weights())
    k, chunk = sampled(config, weights(), batch=batch)

    def densities(bias):
        return log_prob({**params, "bias": bias}, chunk.latents, k, config, K)[:, 0]

    def mean_f(bias):
        actions = clean_action({**params, "bias": bias}, chunk.latents[:, 0])
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
@pytest.mark.parametrize("mode", MODES)
def test_entropy_is_the_mean_negative_density(mode, correlation):
    config, batch = NoiseConfig(mode=mode, level=MODES[mode], correlation=correlation), 20_000
    k, chunk = sampled(config, weights(), batch=batch)
    spread = make_spread(to_jax(weights()), jnp)
    chain = flow.Chain(config, K, SCALE)
    std = flow.stds(chain, k, jnp.full(batch, config.level), spread)
    analytic = flow.entropy(chain, std, H)
    excess = -np.asarray(chunk.log_prob, np.float64) - np.asarray(analytic)
    assert (abs(excess.mean(0)) < 4 * excess.std(0) / math.sqrt(batch)).all()


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("mode", MODES)
def test_the_noise_of_a_chunk_has_exactly_the_stated_covariance(mode, correlation):
    """Over a chunk's steps ρ, over channels and denoising steps none; at the stated standard deviations."""
    batch = 20_000
    config, params = NoiseConfig(mode=mode, level=MODES[mode], correlation=correlation), weights()
    factor = modes.correlation_factor(config, H)
    expected = correlations(correlation, H)
    np.testing.assert_allclose(factor @ factor.T, expected, atol=1e-15)

    k, chunk = sampled(config, params, batch=batch)
    residuals, deviations = reference_steps(params, chunk.latents, k, config, K)
    z = residuals / deviations[:, :, None]  # [batch, M, H, channels]
    moments = np.einsum("bmhc,bnjd->mhcnjd", z, z) / batch
    M, channels = z.shape[1], z.shape[3]
    stated = np.einsum("mn,hj,cd->mhcnjd", np.eye(M), expected, np.eye(channels))
    # Var(z_i·z_j) = 1 + cov² ≤ 2 for unit variances (Isserlis).
    assert np.abs(moments - stated).max() < 5 * math.sqrt(2 / batch)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize("M", [1, 3])
def test_kl_equals_the_closed_form_of_each_executed_prefix(M, correlation):
    """Of multivariate normals with different means and variances, step by step of the chain."""
    rng = np.random.default_rng(0)
    C = len(SCORED)
    means = rng.normal(size=(2, B, M, H, C))
    deviations = rng.uniform(0.2, 0.6, size=(2, B, M, C))
    chain = flow.Chain(NoiseConfig(correlation=correlation), K, SCALE)
    latents = jnp.zeros((B, K + 1, H, A))
    with jax.enable_x64(True):
        pair = [flow.Distribution(jnp.asarray(m), jnp.asarray(s)) for m, s in zip(means, deviations)]
        steps = np.asarray(flow.kl(chain, *pair, latents))
        same = np.asarray(flow.kl(chain, pair[0], pair[0], latents))
    np.testing.assert_array_equal(same, 0.0)
    for b in range(B):
        for n in range(1, H + 1):
            correlation_n, expected = correlations(correlation, H)[:n, :n], 0.0
            for m, c in np.ndindex(M, C):
                own, other = (deviations[i, b, m, c] ** 2 * correlation_n for i in (0, 1))
                inverse, shift = np.linalg.inv(other), (means[0] - means[1])[b, m, :n, c]
                expected += 0.5 * (np.trace(inverse @ own) + shift @ inverse @ shift - n)
                expected += 0.5 * (np.linalg.slogdet(other)[1] - np.linalg.slogdet(own)[1])
            np.testing.assert_allclose(steps[b, :n].sum(), expected, rtol=1e-10)


def test_the_kl_of_a_small_difference_in_width_survives_float32():
    std = jnp.full((1, 1, 1), 0.02)
    mean = jnp.zeros((1, 1, 1, 1))
    wider = flow.Distribution(mean, std * jnp.float32(1.001))
    ratio = float(std[0, 0, 0]) / float(wider.std[0, 0, 0])
    expected = 0.5 * (ratio**2 - 1) - math.log(ratio)
    chain, latents = flow.Chain(NoiseConfig(), K, np.ones(1)), jnp.zeros((1, 3, 1, 1))
    actual = flow.kl(chain, flow.Distribution(mean, std), wider, latents)
    np.testing.assert_allclose(actual, expected, rtol=1e-3)
