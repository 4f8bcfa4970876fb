"""PPO's losses against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pirl_jax.recipe import ObjectiveConfig
from pirl_jax.update import losses

H = 3
SIZES = st.sampled_from([1, 2, 3, 7, 40])
"""Of a minibatch. Each other one is compiled anew."""


def drawn(seed, n):
    rng = np.random.default_rng(seed)
    columns = [rng.normal(scale=scale, size=n) for scale in (1.0, 1.0, 1.0)]
    weight = (rng.random(n) < 0.7).astype(np.float64)
    weight[0] = 1.0
    return *columns, weight


def drawn_chunks(seed, n):
    """Log-densities of (new, proximal, behaviour) policies [n, H], advantages, executed steps, weights."""
    rng = np.random.default_rng(seed)
    log_probs = rng.normal(scale=0.4, size=(3, n, H))
    step_mask = np.arange(H) < rng.integers(1, H + 1, size=n)[:, None]
    weight = (rng.random(n) < 0.7).astype(np.float64)
    weight[0] = 1.0
    return *log_probs, rng.normal(size=n), step_mask, weight


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=SIZES,
    clip=st.floats(0.01, 0.5),
    cap=st.floats(0.5, 3.0),
    aggregation=st.sampled_from(["chunk", "action"]),
    dual=st.none() | st.floats(1.05, 2.0),
)
def test_policy_loss_equals_the_reference(seed, n, clip, cap, aggregation, dual):
    new, proximal, behaviour, advantages, step_mask, weight = drawn_chunks(seed, n)
    sums, count, kl = np.zeros(4), 0.0, 0.0
    for i in range(n):
        executed = np.flatnonzero(step_mask[i])
        for steps in [executed] if aggregation == "chunk" else executed[:, None]:
            log_new, log_near, log_acted = (x[i, steps].sum() for x in (new, proximal, behaviour))
            ratio, importance = np.exp(log_new - log_near), min(np.exp(log_near - log_acted), cap)
            surrogate = min(ratio * advantages[i], np.clip(ratio, 1 - clip, 1 + clip) * advantages[i])
            if dual is not None and advantages[i] < 0:
                surrogate = max(surrogate, dual * advantages[i])
            clipped = ratio > 1 + clip if advantages[i] > 0 else ratio < 1 - clip
            clipped = clipped or (dual is not None and advantages[i] < 0 and ratio > dual)
            sums += weight[i] * np.array([-importance * surrogate, clipped, ratio, importance])
            count += weight[i]
        change, past = (new - proximal)[i, executed].sum(), (proximal - behaviour)[i, executed].sum()
        kl += weight[i] * min(np.exp(past), cap) * (np.exp(change) - 1 - change)
    config = ObjectiveConfig(
        clip_ratio=clip, max_behaviour_weight=cap, aggregation=aggregation, dual_clip=dual
    )
    with jax.enable_x64(True):
        arrays = map(jnp.asarray, (new, proximal, behaviour, advantages, step_mask, weight))
        value, metrics = losses.policy_loss(*arrays, config)
        actual = [value] + [metrics[name] for name in ("clip_fraction", "ratio_mean", "behaviour_weight")]
        np.testing.assert_allclose(actual, sums / count, atol=1e-12)
        np.testing.assert_allclose(metrics["approx_kl"], kl / weight.sum(), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=SIZES,
    clip=st.floats(0.01, 2.0),
    delta=st.floats(0.1, 10.0),
)
def test_value_loss_equals_the_reference(seed, n, clip, delta):
    values, old_values, targets, weight = drawn(seed, n)

    def huber(error):
        return 0.5 * error**2 if abs(error) <= delta else delta * (abs(error) - 0.5 * delta)

    terms = []
    for value, old, target in zip(values, old_values, targets, strict=True):
        clipped = old + min(max(value - old, -clip), clip)
        terms.append(max(huber(value - target), huber(clipped - target)))
    with jax.enable_x64(True):
        actual = losses.value_loss(*map(jnp.asarray, (values, old_values, targets, weight)), clip, delta)
    np.testing.assert_allclose(actual, (weight * np.array(terms)).sum() / weight.sum(), atol=1e-12)


@pytest.mark.parametrize("aggregation", ["chunk", "action"])
def test_gradients_equal_central_differences(aggregation):
    n, config = 16, ObjectiveConfig(aggregation=aggregation)
    with jax.enable_x64(True):
        values, old_values, targets, _ = map(jnp.asarray, drawn(3, n))
        new, *rest = map(jnp.asarray, drawn_chunks(3, n))
        *_, weight = rest
        cases = {
            "policy": (lambda x: losses.policy_loss(x.reshape(n, H), *rest, config)[0], new.ravel()),
            "value": (
                lambda x: losses.value_loss(x, old_values, targets, weight, 0.2, 10.0),
                values,
            ),
        }
        for name, (objective, at) in cases.items():
            steps = 1e-6 * jnp.eye(at.size)
            differences = [(objective(at + e) - objective(at - e)) / 2e-6 for e in steps]
            np.testing.assert_allclose(jax.grad(objective)(at), differences, atol=1e-8, err_msg=name)


def test_unchanged_policy_has_ratio_exactly_one():
    log_prob, advantages = jnp.array([[-700.0, 3.0], [2.0, 1.0]]), jnp.array([1.0, -0.5])
    same = (log_prob, log_prob, log_prob, advantages, jnp.ones((2, 2), bool), jnp.ones(2))
    value, metrics = losses.policy_loss(*same, ObjectiveConfig())
    assert (float(metrics["ratio_mean"]), float(metrics["approx_kl"])) == (1.0, 0.0)
    assert float(value) == -0.25


def test_an_outlier_cannot_overflow_the_gradient():
    zeros, everything = jnp.zeros((2, 1)), jnp.ones((2, 1), bool)
    advantages, weight = jnp.array([-1.0, 1.0]), jnp.ones(2)
    gradient = jax.grad(
        lambda x: losses.policy_loss(x, zeros, zeros, advantages, everything, weight, ObjectiveConfig())[0]
    )
    assert jnp.isfinite(gradient(jnp.array([[1e4], [0.0]]))).all()


@pytest.mark.parametrize(("log_ratio", "unbounded", "bounded"), [(-3.0, 0.0, 0.0), (3.0, np.exp(3.0), 0.0)])
def test_the_dual_clip_ends_the_pull_of_a_bad_chunk_that_became_likelier(log_ratio, unbounded, bounded):
    """A = -1: at a ratio of twenty PPO pulls twenty times as hard as at one."""
    zeros, everything = jnp.zeros((1, 1)), jnp.ones((1, 1), bool)

    def pull(dual_clip):
        config = ObjectiveConfig(dual_clip=dual_clip)
        arrays = zeros, zeros, -jnp.ones(1), everything, jnp.ones(1), config
        return float(jax.grad(lambda x: losses.policy_loss(x, *arrays)[0])(jnp.full((1, 1), log_ratio))[0, 0])

    np.testing.assert_allclose([pull(None), pull(3.0)], [unbounded, bounded], rtol=1e-6)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "fraction"), [(0.5, 1.0, 1), (-0.5, 1.0, 0), (0.5, -1.0, 0), (-0.5, -1.0, 1)]
)
def test_only_what_the_clip_holds_back_counts_as_clipped(log_ratio, advantage, fraction):
    zeros, everything = jnp.zeros((1, 1)), jnp.ones((1, 1), bool)
    arrays = zeros, zeros, jnp.full(1, advantage), everything, jnp.ones(1), ObjectiveConfig()

    def loss(x):
        return losses.policy_loss(x, *arrays)

    gradient, metrics = jax.grad(loss, has_aux=True)(jnp.full((1, 1), log_ratio))
    assert float(metrics["clip_fraction"]) == fraction == (float(gradient[0, 0]) == 0)


def test_over_steps_sums_the_steps_that_count_only():
    per_step = jnp.array([[1.0, 2.0, jnp.nan], [4.0, jnp.inf, jnp.nan]])
    mask = jnp.array([[True, True, False], [True, False, False]])
    np.testing.assert_array_equal(losses.over_steps(per_step, mask), [3.0, 4.0])


def test_explained_variance_equals_its_definition():
    rng = np.random.default_rng(0)
    targets, weight = rng.normal(size=50).astype(np.float32), (np.arange(50) < 30).astype(np.float32)
    values = (0.8 * targets + 0.3 * rng.normal(size=50)).astype(np.float32)
    expected = 1 - np.var((targets - values)[:30]) / np.var(targets[:30])
    actual = losses.explained_variance(jnp.asarray(values), jnp.asarray(targets), jnp.asarray(weight))
    assert float(actual) == pytest.approx(expected, abs=1e-5)
    assert float(losses.explained_variance(jnp.ones(3), jnp.zeros(3), jnp.ones(3))) == 0.0
