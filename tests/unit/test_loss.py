"""PPO's losses against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pirl_jax import loss


def drawn(seed, n):
    rng = np.random.default_rng(seed)
    columns = [rng.normal(scale=scale, size=n) for scale in (0.4, 0.4, 1.0, 1.0, 1.0)]
    weight = (rng.random(n) < 0.7).astype(np.float64)
    weight[0] = 1.0
    return *columns, weight


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), clip=st.floats(0.01, 0.5))
def test_policy_loss_equals_the_reference(seed, n, clip):
    new, old, advantages, _, _, weight = drawn(seed, n)
    total, count = np.zeros(4), weight.sum()
    for i in range(n):
        ratio = np.exp(new[i] - old[i])
        surrogate = min(ratio * advantages[i], np.clip(ratio, 1 - clip, 1 + clip) * advantages[i])
        kl = ratio - 1 - (new[i] - old[i])
        total += weight[i] * np.array([-surrogate, kl, abs(ratio - 1) > clip, ratio])
    with jax.enable_x64(True):
        value, metrics = loss.policy_loss(*map(jnp.asarray, (new, old, advantages, weight)), clip)
        actual = [value, metrics["approx_kl"], metrics["clip_fraction"], metrics["ratio_mean"]]
    np.testing.assert_allclose(actual, total / count, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    clip=st.floats(0.01, 2.0),
    delta=st.floats(0.1, 10.0),
)
def test_value_loss_equals_the_reference(seed, n, clip, delta):
    _, _, values, old_values, targets, weight = drawn(seed, n)

    def huber(error):
        return 0.5 * error**2 if abs(error) <= delta else delta * (abs(error) - 0.5 * delta)

    terms = []
    for value, old, target in zip(values, old_values, targets, strict=True):
        clipped = old + min(max(value - old, -clip), clip)
        terms.append(max(huber(value - target), huber(clipped - target)))
    with jax.enable_x64(True):
        actual = loss.value_loss(*map(jnp.asarray, (values, old_values, targets, weight)), clip, delta)
    np.testing.assert_allclose(actual, (weight * np.array(terms)).sum() / weight.sum(), atol=1e-12)


def test_gradients_equal_central_differences():
    new, old, advantages, old_values, targets, weight = drawn(3, 16)
    with jax.enable_x64(True):
        arrays = [jnp.asarray(x) for x in (new, old, advantages, old_values, targets, weight)]
        new, old, advantages, old_values, targets, weight = arrays
        losses = {
            "policy": lambda x: loss.policy_loss(x, old, advantages, weight, 0.2)[0],
            "value": lambda x: loss.value_loss(x, old_values, targets, weight, 0.2, 10.0),
        }
        for name, objective in losses.items():
            steps = 1e-6 * jnp.eye(16)
            differences = [(objective(new + e) - objective(new - e)) / 2e-6 for e in steps]
            np.testing.assert_allclose(jax.grad(objective)(new), differences, atol=1e-8, err_msg=name)


def test_unchanged_policy_has_ratio_exactly_one():
    log_prob, advantages, weight = jnp.array([-700.0, 3.0]), jnp.array([1.0, -0.5]), jnp.ones(2)
    value, metrics = loss.policy_loss(log_prob, log_prob, advantages, weight, 0.2)
    assert (float(metrics["ratio_mean"]), float(metrics["approx_kl"])) == (1.0, 0.0)
    assert float(value) == -0.25


def test_an_outlier_cannot_overflow_the_gradient():
    advantages, weight = jnp.array([-1.0, 1.0]), jnp.ones(2)
    gradient = jax.grad(lambda x: loss.policy_loss(x, jnp.zeros(2), advantages, weight, 0.2)[0])
    assert jnp.isfinite(gradient(jnp.array([1e4, 0.0]))).all()


def test_chunk_log_prob_sums_executed_steps_only():
    per_step = jnp.array([[1.0, 2.0, jnp.nan], [4.0, jnp.inf, jnp.nan]])
    mask = jnp.array([[True, True, False], [True, False, False]])
    np.testing.assert_array_equal(loss.chunk_log_prob(per_step, mask), [3.0, 4.0])


def test_explained_variance_equals_its_definition():
    rng = np.random.default_rng(0)
    targets, weight = rng.normal(size=50).astype(np.float32), (np.arange(50) < 30).astype(np.float32)
    values = (0.8 * targets + 0.3 * rng.normal(size=50)).astype(np.float32)
    expected = 1 - np.var((targets - values)[:30]) / np.var(targets[:30])
    actual = loss.explained_variance(jnp.asarray(values), jnp.asarray(targets), jnp.asarray(weight))
    assert float(actual) == pytest.approx(expected, abs=1e-5)
    assert float(loss.explained_variance(jnp.ones(3), jnp.zeros(3), jnp.ones(3))) == 0.0
