"""Velocity policies: Euler's sampler without noise, the published samplers with it."""

import dataclasses
import math

import by_recipe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_recipe import make_batch, make_evaluate, make_recipe, make_scorer, make_update
from toy_chain import (
    MODES,
    REPLAYS,
    SCALE,
    SCORED,
    conditionals,
    make_predict,
    make_spread,
    steps_of,
    to_jax,
    weights,
)
from toy_run import FROZEN, PARAMS, RECIPE, critic, episode, fresh_state, toy_policy

from pirl_jax.likelihood import flow, modes
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.behaviour import Behaviour

B, H, A = 6, 4, 5


def published_step(mode, level, x, v, k, K):
    """Mean and standard deviation of x_s in the papers' own terms, float64."""
    t, s, delta = k / K, (k - 1) / K, 1 / K
    if mode in ("terminal", "flow_noise"):  # πRL's Flow-Noise learns a factor on the level
        return x - delta * v, level
    if mode == "flow_sde":  # πRL, eq. 9; Flow-GRPO (arXiv 2505.05470), whose Δt is -δ
        sigma = level * math.sqrt(t / (1 - t if k < K else delta))
        return x - delta * (v + sigma**2 / (2 * t) * (x + (1 - t) * v)), sigma * math.sqrt(delta)
    if mode == "flow_cps":  # arXiv 2509.05952, whose noise level η' has η = sin(η'π/2)
        angle = math.asin(level)
        clean, noisy = x - t * v, x + (1 - t) * v
        return (1 - s) * clean + s * math.cos(angle) * noisy, s * math.sin(angle)
    raise NotImplementedError(mode)


@pytest.mark.parametrize("K", [1, 2, 5, 10])
@pytest.mark.parametrize("mode", MODES)
def test_every_noised_step_is_the_published_one(mode, K):
    x, v = np.random.default_rng(0).normal(size=(2, 100))
    config = NoiseConfig(mode=mode, level=MODES[mode])
    for k in modes.MODES[mode].noised_steps(K):
        step = modes.noised_step(config, k, K, "velocity")
        mean, std = published_step(mode, config.level, x, v, k, K)
        assert step.noise_coef == 0
        np.testing.assert_allclose(step.x_coef * x + step.action_coef * v, mean, atol=1e-7)
        assert step.std == pytest.approx(std, abs=1e-12)
        assert (step.t, step.s) == (pytest.approx(k / K, abs=1e-15), (k - 1) / K)


def test_terminal_keeps_eulers_mean_to_the_bit():
    for K in (1, 3, 10):
        step = modes.noised_step(NoiseConfig(), 1, K, "velocity")
        assert step._replace(std=0.0) == modes.plain_step(1, K, "velocity")


@pytest.mark.parametrize("K", [1, 2, 3, 7, 10, 33])
def test_zero_noise_is_eulers_sampler_bit_for_bit_in_float32(K):
    """Against LeRobot's loop (``euler_integrate``), transcribed, in NumPy's IEEE arithmetic."""
    head = make_predict(jax.tree.map(np.float32, weights()), np)
    eps0 = np.random.default_rng(1).normal(size=(B, H, A)).astype(np.float32)
    x, dt = eps0, -1.0 / K
    for i in range(K):
        x = x + np.float32(dt) * head(x, np.full(B, 1.0 + i * dt, np.float32))
    mixed = eps0
    for step in modes.transitions(NoiseConfig(), K, parametrization="velocity"):
        v = head(mixed, np.full(B, step.t, np.float32))
        coefs = map(np.float32, (step.noise_coef, step.action_coef, step.x_coef))
        terms = [x * c for x, c in zip((eps0, v, mixed), coefs)]
        mixed = terms[0] + terms[1] + terms[2]
    np.testing.assert_array_equal(mixed, x)
    head = make_predict(to_jax(weights()), jnp)
    actual = flow.deterministic(chain_of(NoiseConfig(), K), head, jnp.asarray(eps0))
    np.testing.assert_allclose(actual, x, atol=2e-6)


def test_flow_sde_keeps_the_marginals_of_the_flow_to_second_order_in_the_step():
    """Data N(m, d²): x_t ~ N((1-t)m, t² + (1-t)²d²), v = E[ε - a | x_t] is linear. A noised step from t = ½.

    A sign or a factor that is wrong leaves an error of first order.
    """
    m, d, t = 0.7, 0.4, 0.5
    variance = t**2 + (1 - t) ** 2 * d**2
    slope = (t - (1 - t) * d**2) / variance  # Cov(ε - a, x_t) / Var(x_t)

    def error(K):
        k = K // 2
        step = modes.noised_step(NoiseConfig(mode="flow_sde", level=0.8), k, K, "velocity")
        gain = step.x_coef + step.action_coef * slope
        mean = gain * (1 - t) * m + step.action_coef * (-m - slope * (1 - t) * m)
        s = step.s
        return np.array([mean - (1 - s) * m, gain**2 * variance + step.std**2 - (s**2 + (1 - s) ** 2 * d**2)])

    coarse, fine = error(40), error(80)
    assert (np.abs(coarse) < 5e-3).all()
    assert (np.abs(fine) < 0.3 * np.abs(coarse) + 1e-7).all()


def chain_of(config, K):
    return flow.Chain(config, K, SCALE, parametrization="velocity")


def reference_log_prob(params, latents, k, config, K):
    head, spread, scored = make_predict(params, np), make_spread(params, np), list(SCORED)
    learned = config.mode == "flow_noise"
    residuals, deviations = [], []
    for row, (states, first) in enumerate(zip(latents.astype(np.float64), k, strict=True)):
        steps = range(first, 0, -1) if learned else [first]
        inputs, outcomes = states[-len(steps) - 1 : -1], states[-len(steps) :]
        for x, x_s, step in zip(inputs, outcomes, steps, strict=True):
            if config.replay == "full":
                x = states[0]
                for i in range(K, step, -1):
                    x = x - head(x[None], np.array([i / K]))[0] / K
            v = head(x[None], np.array([step / K]))[0]
            mean, std = published_step(config.mode, config.level, x, v, step, K)
            factors = np.exp(spread(np.full(len(k), step / K))[row, scored]) if learned else 1.0
            residuals.append((x_s - mean)[:, scored])
            deviations.append(std * SCALE[scored] * factors)
    shape = len(k), -1, *residuals[0].shape
    deviations = np.reshape(deviations, (len(k), -1, len(scored)))
    return conditionals(np.reshape(residuals, shape), deviations, config.correlation)


@pytest.mark.parametrize(("mode", "replay"), REPLAYS)
def test_log_prob_equals_the_float64_reference(mode, replay):
    K, config = 5, NoiseConfig(mode=mode, replay=replay, level=MODES[mode], correlation=0.3)
    k = steps_of(mode, B, K)
    chain, params = chain_of(config, K), to_jax(weights())
    head, spread = make_predict(params, jnp), make_spread(params, jnp)
    eps0 = jax.random.normal(jax.random.PRNGKey(0), (B, H, A))
    chunk = flow.sample(
        chain, head, eps0, jax.random.split(jax.random.PRNGKey(1), B), k, log_multiplier=spread
    )
    own = flow.log_prob(chain, head, chunk.latents, k, log_multiplier=spread)
    np.testing.assert_allclose(own, chunk.log_prob, rtol=1e-6, atol=5e-5)
    executed = flow.finish(chain, head, chunk.latents, k)
    np.testing.assert_allclose(executed, chunk.action, atol=1e-6)

    other, latents = weights(seed=7), np.asarray(chunk.latents)
    expected = reference_log_prob(other, latents, np.asarray(k), config, K)
    with jax.enable_x64(True):
        params = to_jax(other, jnp.float64)
        head, spread = make_predict(params, jnp), make_spread(params, jnp)
        exact = flow.log_prob(chain, head, jnp.asarray(latents, jnp.float64), k, log_multiplier=spread)
    # The weights of ε₀ and â are float32's (LeRobot's), the papers' are exact.
    np.testing.assert_allclose(exact, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("replay", ["last", "full"])
def test_a_velocity_policy_is_scored_and_trained_through_the_same_interface(replay):
    policy = dataclasses.replace(toy_policy(), parametrization="velocity")
    recipe = make_recipe(RECIPE, noise=NoiseConfig(level=0.5, replay=replay))
    score, chain = make_scorer(policy, FROZEN, recipe), flow.Chain.of(policy, recipe.noise)
    collected = []
    for seed in range(3):
        item = episode(seed, 3, terminated=True)
        images = (item.observations.images / 100).astype(np.uint8)
        observations = dataclasses.replace(item.observations, images=images)
        features = FROZEN["scale"] * jnp.asarray(images[:3], jnp.float32).mean((1, 2, 3, 4))

        def head(x_t, t, features=features, proprio=observations.proprio[:3]):
            return policy.predict(PARAMS, features, x_t, t, proprio, None)

        keys, k = jax.random.split(jax.random.PRNGKey(seed)), jnp.ones(3, jnp.int32)
        eps0 = jax.random.normal(keys[0], (3, 3, 2))
        chunk = flow.sample(chain, head, eps0, jax.random.split(keys[1], 3), k)
        arrays = {"latents": np.asarray(chunk.latents), "log_prob": np.asarray(chunk.log_prob)}
        item = dataclasses.replace(item, observations=observations, **arrays)
        collected.append(score(item, Behaviour(PARAMS, 0, recipe.noise.level)))
    assert max(item.log_prob_gap for item in collected) < 1e-4

    start, evaluate = fresh_state(recipe), make_evaluate(policy, critic, recipe)
    batch, n = make_batch([by_recipe.collected(item) for item in collected], recipe, evaluate, start)
    one_step = make_recipe(recipe, minibatch_size=len(batch.advantages))
    _, metrics = make_update(policy.predict, critic, one_step, chain)(start, batch, n)
    assert float(metrics["train/ratio_mean"]) == pytest.approx(1.0, abs=1e-4)
    as_data = dataclasses.replace(chain, parametrization="data")
    _, wrong = make_update(policy.predict, critic, one_step, as_data)(fresh_state(recipe), batch, n)
    assert float(wrong["train/approx_kl"]) > 0.01


def test_an_unknown_parametrization_is_refused():
    with pytest.raises(ValueError, match="must be data or velocity; got 'score'"):
        modes.plain_step(1, 5, "score")
