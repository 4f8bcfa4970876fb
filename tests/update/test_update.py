"""One PPO update: what it computes, and what it never lets happen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_recipe import make_critic_update, make_recipe, make_update
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_update import (
    CAPACITY,
    SCALE,
    A,
    H,
    K,
    P,
    adam,
    assert_same,
    collect,
    critic,
    new_state,
    padded,
    predict,
    recipe,
    update_of,
)

from pirl_jax.likelihood import flow
from pirl_jax.update import advantage, state
from pirl_jax.update.batch import Batch, pad_rows
from pirl_jax.update.critic_steps import CriticBatch
from pirl_jax.update.update import _permutation


@pytest.fixture(scope="module")
def default_update():
    return update_of(recipe())


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("aggregation", ["chunk", "action"])
@pytest.mark.parametrize("mode", ["terminal", "flow_noise"])
def test_update_equals_an_independent_float64_ppo(mode, aggregation, decoupled):
    """Full-batch PPO with hand-derived gradients of the linear policy, 4 epochs, the clip and cap active.

    Every row has a noise level of its own. Arrays are [N, M noised steps, H, A]; θ holds the mean's weight
    and bias and the logarithms of the standard deviations.
    """
    learned = mode == "flow_noise"
    config = recipe(
        mode=mode,
        entropy_coef=0.5 * learned,
        num_epochs=4,
        minibatch_size=CAPACITY,
        lr=0.1,
        value_clip=0.2,
        huber_delta=0.5,
        aggregation=aggregation,
        decoupled=decoupled,
        max_behaviour_weight=1.2,
        reference_kl_coef=0.3 * decoupled,
        lr_warmup_steps=3,
    )
    train_state = new_state(config)
    acted = train_state.params
    if decoupled:  # another policy, two updates ago
        acted = jax.tree.map(
            lambda x: x + 0.03 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), acted
        )
    batch = collect(acted, config, 20, seed=1, levels=(0.8, 1.3))
    b = jax.tree.map(lambda x: np.asarray(x, np.float64), batch)
    mask, eps = b.step_mask, 1e-7
    t = (np.arange(K, 0, -1) if learned else np.ones(1)) / K
    s = t - 1 / K
    inputs, outcomes = (b.latents[:, :-1], b.latents[:, 1:]) if learned else np.split(b.latents[:, 1:], 2, 1)
    share = (1 - s)[:, None, None]  # of the clean action in the mean
    fixed = s[:, None, None] * b.latents[:, :1] + share * 0.05 * inputs * t[:, None, None]
    first = jax.device_get(train_state)
    names = ("weight", "bias", "log_std")
    theta = np.concatenate([np.ravel(first.params[name]) for name in names]).astype(np.float64)
    first_theta = theta

    def means(theta):
        weight, bias = theta[: P * A].reshape(P, A), theta[P * A : -A]
        return fixed + share * (b.proprio @ weight + bias)[:, None, None]

    def stds(theta):
        factors = np.exp(theta[-A:] + 0.1 * t[:, None]) if learned else np.ones((1, A))
        return (b.level[:, None, None] * factors)[:, :, None]

    def densities(theta):
        z = (outcomes - means(theta)) / stds(theta)
        return mask * (-0.5 * z**2 - np.log(stds(theta) * np.sqrt(2 * np.pi))).sum((1, 3))

    def total(steps):
        return steps if aggregation == "action" else steps.sum(1, keepdims=True) + 0 * steps

    behaviour = total(mask * b.old_log_prob)
    proximal = total(densities(theta)) if decoupled else behaviour
    importance = np.minimum(np.exp(proximal - behaviour), 1.2)
    assert (importance == 1.2).any() == decoupled
    gains = np.broadcast_to(b.advantages[:, None], mask.shape)
    units = mask.sum() if aggregation == "action" else len(mask)

    def policy_gradient(theta):
        ratio = np.exp(total(densities(theta)) - proximal)
        unclipped = np.where(gains > 0, ratio < 1.2 + eps, ratio > 0.8 - eps)
        weights = -(mask * unclipped * importance * ratio * gains / units)[:, None, :, None]
        std, first_std = stds(theta), stds(first_theta)
        residual = outcomes - means(theta)
        executed = mask[:, None, :, None] * config.objective.reference_kl_coef / len(mask)
        moved = means(theta) - means(first_theta)
        # d/dμ and d/d log σ of each density, and of each KL: log(τ/σ) + (σ² + (μ - ν)²)/2τ² - ½.
        by_mean = weights * residual / std**2 + executed * moved / first_std**2
        by_std = weights * (residual**2 / std**2 - 1) + executed * (std**2 / first_std**2 - 1)
        row = (share * by_mean).sum((1, 2))
        by_std = by_std.sum((0, 1, 2)) - config.objective.entropy_coef / A if learned else np.zeros(A)
        return np.concatenate([(b.proprio.T @ row).ravel(), row.sum(0), by_std])

    phi = np.append(first.critic_params["weight"], first.critic_params["bias"]).astype(np.float64)

    def critic_gradient(phi):
        values = b.features @ phi[:4] + phi[4]
        clipped = b.old_values + np.clip(values - b.old_values, -0.2, 0.2)
        rows = []
        for value, clip, target in zip(values, clipped, b.value_targets):
            costs = [
                0.5 * e**2 if abs(e) <= 0.5 else 0.5 * (abs(e) - 0.25)
                for e in (value - target, clip - target)
            ]
            slope = np.clip(value - target, -0.5, 0.5)
            rows.append(slope if costs[0] >= costs[1] or clip == value else 0.0)
        row = np.array(rows) / len(rows)
        return np.concatenate([b.features.T @ row, [row.sum()]])

    expected = adam(policy_gradient, theta, 0.1, 4, warmup=3)
    expected_critic = adam(critic_gradient, phi, 1e-2, 4)
    new, metrics = update_of(config)(train_state, padded(batch), 20)
    assert float(metrics["train/clip_fraction"]) > 0.1
    actual = np.concatenate([np.ravel(new.params[name]) for name in names])
    np.testing.assert_allclose(actual, expected, atol=2e-5)
    assert np.any(actual[-A:]) == learned
    actual = np.concatenate([new.critic_params["weight"], new.critic_params["bias"][None]])
    np.testing.assert_allclose(actual, expected_critic, atol=2e-6)


REPLAYS = [("terminal", "last"), ("terminal", "full"), ("flow_noise", "last")]


@pytest.mark.parametrize("aggregation", ["chunk", "action"])
@pytest.mark.parametrize("microbatch_size", [1, 3, 7])
def test_microbatches_are_the_same_update_in_less_memory(microbatch_size, aggregation):
    """In float64, with everything that an objective may hold, and minibatches that do not divide evenly."""
    whole, cut = (
        recipe(
            mode="flow_noise",
            entropy_coef=0.1,
            reference_kl_coef=0.3,
            decoupled=True,
            aggregation=aggregation,
            minibatch_size=7,
            num_epochs=3,
            microbatch_size=size,
        )
        for size in ("auto", microbatch_size)
    )
    with jax.enable_x64(True):

        def updated(config):
            def double(x):
                return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x

            state = jax.tree.map(double, new_state(config))
            batch = jax.tree.map(double, collect(new_state(config).params, config, 20, seed=1))
            shares = jnp.linspace(0.5, 1.5, 20), jnp.linspace(1.5, 0.5, 20)
            batch = batch.replace(share=shares[0], policy_share=shares[1])
            return update_of(config)(state, padded(batch), 20)

        (state, metrics), (expected, their_metrics) = updated(cut), updated(whole)
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(state.params), jax.tree.leaves(expected.params), strict=True
    ):
        assert leaf.dtype == jnp.float64
        np.testing.assert_allclose(leaf, other, rtol=0, atol=1e-12, err_msg=jax.tree_util.keystr(path))
    assert metrics.keys() == their_metrics.keys()
    assert metrics["train/policy_steps"] == 9
    for name, value in metrics.items():
        np.testing.assert_allclose(value, their_metrics[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("mode", "replay"), REPLAYS)
def test_decoupled_ratio_is_one_before_the_first_step_whoever_acted(mode, replay):
    config = recipe(num_epochs=1, minibatch_size=CAPACITY, mode=mode, replay=replay, decoupled=True)
    train_state = new_state(config)
    batch = collect(new_state(config, seed=9).params, config, CAPACITY, seed=2, levels=(0.5, 1.0))
    _, metrics = update_of(config)(train_state, batch, CAPACITY)
    assert float(metrics["train/ratio_mean"]) == pytest.approx(1.0, abs=1e-5)
    assert float(metrics["train/clip_fraction"]) == 0.0
    assert float(metrics["train/behaviour_weight"]) != pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("mode", "replay"), REPLAYS)
def test_ratio_is_one_before_the_first_step(mode, replay):
    config = recipe(num_epochs=1, minibatch_size=CAPACITY, mode=mode, replay=replay)
    train_state = new_state(config)
    batch = collect(train_state.params, config, CAPACITY, seed=2, levels=(0.5, 1.0))
    _, metrics = update_of(config)(train_state, batch, CAPACITY)
    assert float(metrics["train/ratio_mean"]) == pytest.approx(1.0, abs=1e-5)
    assert float(metrics["train/approx_kl"]) == pytest.approx(0.0, abs=1e-9)
    assert float(metrics["train/clip_fraction"]) == 0.0


def test_two_updates_and_two_after_a_round_trip_equal_four(default_update):
    """Fixed rollouts; the state goes through host memory half-way, as it does through a checkpoint."""
    config = recipe()
    batches = [padded(collect(new_state(config).params, config, n, seed=n)) for n in (24, 17, 20, 9)]
    straight = new_state(config)
    for batch, n in zip(batches, (24, 17, 20, 9)):
        straight, _ = default_update(straight, batch, n)
    resumed = new_state(config)
    for i, (batch, n) in enumerate(zip(batches, (24, 17, 20, 9))):
        if i == 2:
            resumed = jax.device_put(jax.device_get(resumed))
        resumed, _ = default_update(resumed, batch, n)
    assert int(resumed.updates) == 4
    assert_same(resumed, straight)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(0, CAPACITY), seed=st.integers(0, 1000))
def test_padding_never_influences_an_update(default_update, n, seed):
    config = recipe()
    rng = np.random.default_rng(seed)
    batch = jax.device_get(collect(new_state(config).params, config, CAPACITY, seed=5))

    def filled(with_garbage):
        def fill(x):
            x = np.array(x)
            if with_garbage and np.issubdtype(x.dtype, np.floating):
                x[n:] = rng.choice([np.nan, np.inf, 1e30, -7.0], size=x[n:].shape)
            elif with_garbage and x.dtype != bool:
                x[n:] = rng.integers(-(2**31), 2**31 - 1, size=x[n:].shape)
            else:
                x[n:] = False
            return x

        return jax.device_put(jax.tree.map(fill, batch))

    clean = default_update(new_state(config), filled(False), n)
    dirty = default_update(new_state(config), filled(True), n)
    assert_same(dirty, clean)
    if n == 0:
        assert_same(clean[0].params, new_state(config).params)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 50), seed=st.integers(0, 1000))
def test_permutation_puts_every_valid_point_first(n, seed):
    order = np.asarray(_permutation(jax.random.PRNGKey(seed), 50, jnp.int32(n)))
    assert sorted(order[:n]) == list(range(n))
    assert sorted(order) == list(range(50))


@pytest.mark.parametrize(("n", "size"), [(24, 8), (17, 8), (9, 8), (3, 8), (23, 24), (24, 100), (1, 1)])
def test_each_epoch_visits_each_valid_point_once(n, size):
    """A table critic under signed steps (β = 0): an entry moves by one lr a visit."""
    config = recipe(minibatch_size=size, num_epochs=3, betas=(0.0, 0.0), critic_lr=0.125, grad_clip_norm=1e9)
    config = make_recipe(config, value_clip=1e9)

    def table(params, inputs, proprio):
        return params["table"][inputs.astype(jnp.int32)]

    train_state = new_state(config).replace(critic_params={"table": jnp.zeros(CAPACITY)})
    train_state = train_state.replace(
        critic_opt_state=state.adamw(config.optimizer).init(train_state.critic_params)
    )
    batch = padded(collect(train_state.params, config, n, seed=1))
    batch = batch.replace(
        critic_input=jnp.arange(CAPACITY, dtype=jnp.float32), value_targets=jnp.full(CAPACITY, 100.0)
    )
    chain = flow.Chain(config.noise, K, SCALE)
    new, metrics = make_update(predict, table, config, chain)(train_state, batch, n)
    expected = np.where(np.arange(CAPACITY) < n, 3 * 0.125, 0.0)
    np.testing.assert_allclose(new.critic_params["table"], expected, rtol=1e-4)
    assert int(metrics["train/policy_steps"]) == 3 * -(-n // min(size, CAPACITY))


def test_kl_stop_ends_the_policys_steps_and_not_the_critics():
    config = recipe(num_epochs=20, lr=0.1, target_kl=0.05)
    free = recipe(num_epochs=20, lr=0.1)
    batch = collect(new_state(config).params, config, CAPACITY, seed=5)
    stopped, metrics = update_of(config)(new_state(config), batch, CAPACITY)
    unbounded, free_metrics = update_of(free)(new_state(free), batch, CAPACITY)
    assert 0 < int(metrics["train/policy_steps"]) < 60
    assert bool(metrics["train/kl_stopped"])
    assert int(free_metrics["train/policy_steps"]) == 60
    assert not bool(free_metrics["train/kl_stopped"])
    assert float(metrics["train/approx_kl"]) < float(free_metrics["train/approx_kl"])
    assert_same(stopped.critic_params, unbounded.critic_params)


def test_adaptive_lr_shrinks_above_the_target_and_grows_below_a_third_of_it():
    batch = collect(new_state(recipe()).params, recipe(), CAPACITY, seed=4)

    def next_lr(lr, target_kl, current=None):
        config = recipe(lr=lr, target_kl=target_kl, adaptive_lr=True)
        train_state = new_state(config)
        train_state = train_state if current is None else train_state.replace(lr=jnp.float32(current))
        new, metrics = update_of(config)(train_state, batch, CAPACITY)
        return float(new.lr), float(metrics["train/lr"])

    assert next_lr(0.2, 1e-4) == pytest.approx((0.2 / 1.5, 0.2))
    assert next_lr(1e-4, 0.5) == pytest.approx((1.5e-4, 1e-4))
    assert next_lr(1e-4, 0.5, current=9e-4) == pytest.approx((1e-3, 9e-4))
    config = recipe(lr=0.2, target_kl=1e-4)
    new, _ = update_of(config)(new_state(config), batch, CAPACITY)
    assert float(new.lr) == pytest.approx(0.2)


def test_non_finite_steps_are_skipped_and_counted(default_update):
    config = recipe()
    batch = collect(new_state(config).params, config, CAPACITY, seed=6)
    poisoned = batch.replace(
        advantages=batch.advantages.at[3].set(jnp.nan), value_targets=batch.value_targets.at[3].set(jnp.inf)
    )
    new, metrics = default_update(new_state(config), poisoned, CAPACITY)
    # In each of 2 epochs: the policy's and the critic's step on the minibatch with the point.
    assert int(metrics["train/skipped_steps"]) == 4
    assert int(metrics["train/policy_steps"]) == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new) if leaf.dtype == jnp.float32)
    names = ("policy_loss", "value_loss", "approx_kl", "grad_norm", "critic_grad_norm", "ratio_mean")
    assert all(np.isfinite(metrics[f"train/{name}"]) for name in names)


def test_metrics_describe_the_valid_points():
    config = recipe(minibatch_size=CAPACITY)
    batch = collect(new_state(config).params, config, 20, seed=8)
    _, metrics = update_of(config)(new_state(config), padded(batch), 20)
    targets, errors = np.asarray(batch.value_targets), np.asarray(batch.value_targets - batch.old_values)
    assert float(metrics["train/explained_variance"]) == pytest.approx(
        1 - errors.var() / targets.var(), abs=1e-5
    )
    executed = np.asarray(batch.step_mask).sum(1)
    per_step = len(SCALE) * (np.log(0.3) + 0.5 * np.log(2 * np.pi * np.e))
    assert float(metrics["train/entropy"]) == pytest.approx(executed.mean() * per_step, rel=1e-5)


def test_value_only_steps_fit_the_critic_and_leave_the_rest():
    config = recipe(extra_steps=300, critic_lr=5e-2)
    train_state = new_state(config).replace(updates=jnp.int32(1))
    rng = np.random.default_rng(0)
    features = rng.normal(size=(CAPACITY, 4)).astype(np.float32)
    targets = features @ np.array([1.0, -2.0, 0.5, 0.0], np.float32) + 0.7
    features[20:], targets[20:] = np.nan, np.nan
    points = CriticBatch(jnp.asarray(features), jnp.zeros((CAPACITY, P)), jnp.asarray(targets))
    before = jax.device_get(train_state)
    new, metrics = make_critic_update(critic, config)(train_state, points, 20)
    values = critic(new.critic_params, points.critic_input, points.proprio)
    assert np.abs(np.asarray(values - points.value_targets))[:20].max() < 0.15
    assert int(metrics["train/extra_skipped_steps"]) == 0
    kept = ("params", "opt_state", "key", "updates", "episodes", "lr")
    assert_same([getattr(new, name) for name in kept], [getattr(before, name) for name in kept])


def test_ppo_improves_a_task_whose_optimum_is_known():
    """Reward -|A - target(o)|²: from a wrong start to within reach of the noise floor."""
    config = recipe(lr=0.05, minibatch_size=256, num_epochs=8)
    target = jnp.array([[1.0, -0.5], [0.3, 0.8]])

    @jax.jit
    def rollout(params, seed):
        keys = jax.random.split(jax.random.PRNGKey(seed), 3)
        proprio = jax.random.normal(keys[0], (256, P))
        features, k = jnp.zeros((256, 4)), jnp.ones(256, jnp.int32)

        def head(x_t, t):
            return predict(params, features, x_t, t, proprio, k)

        eps0 = jax.random.normal(keys[1], (256, H, A))
        chunk = flow.sample(flow.Chain(config.noise, K, SCALE), head, eps0, jax.random.split(keys[2], 256), k)
        reward = -jnp.mean(jnp.sum((chunk.action - (proprio @ target)[:, None]) ** 2, -1), -1)
        zeros, everything = jnp.zeros(256), jnp.ones((256, H), bool)
        batch = Batch(
            features=features,
            proprio=proprio,
            domain_id=k,
            latents=chunk.latents,
            denoise_step=k,
            level=jnp.full(256, config.noise.level),
            step_mask=everything,
            old_log_prob=chunk.log_prob,
            advantages=advantage.normalize(reward, jnp.ones(256), 1e-3),
            value_targets=zeros,
            old_values=zeros,
            critic_input=features,
        )
        return batch, reward.mean()

    train_state, update, curve = new_state(config), update_of(config), []
    for seed in range(40):
        batch, reward = rollout(train_state.params, seed)
        curve.append(float(reward))
        train_state, _ = update(train_state, batch, 256)
    noise_floor = -A * config.noise.level**2
    assert curve[0] < 5 * noise_floor
    assert np.mean(curve[-3:]) > 2 * noise_floor


def test_a_batch_larger_than_the_capacity_is_refused():
    with pytest.raises(ValueError, match="5 rows do not fit a capacity of 4"):
        pad_rows({"x": np.zeros((5, 2))}, 4)
