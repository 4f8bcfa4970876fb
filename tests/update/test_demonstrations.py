"""Demonstrations: its schedule, its draws, its place in the policy objective."""

import dataclasses
import threading

import by_recipe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_run
from by_recipe import make_recipe, make_update
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_frames import BATCH as FRAMES
from toy_frames import CONFIG as XVLA_CONFIG
from toy_frames import data
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
    predict,
    recipe,
)

from pirl_jax.likelihood import flow
from pirl_jax.recipe import DemonstrationsConfig
from pirl_jax.trees import store
from pirl_jax.update.demonstrations import Demonstrations, coef_at, encode
from pirl_jax.xvla.images import normalize_images
from pirl_jax.xvla.init import init_params
from pirl_jax.xvla.model import XVLA, sample_times
from pirl_jax.xvla.policy import XVLAFlowPolicy

M = 5


def supervised_loss(params, features, proprio, domain_id, action, key):
    """Of the linear head at a time and a noisy chunk that the key decides."""
    size = len(proprio)
    x_t = jax.random.normal(key, (size, H, A))
    return jnp.mean((predict(params, features, x_t, jnp.ones(size), proprio, domain_id) - action) ** 2)


def demonstrations(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"features": (M, 4), "proprio": (M, P), "action": (M, H, A)}
    arrays = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    return Demonstrations(domain_id=jnp.zeros(M, jnp.int32), **arrays)


def update_of(config):
    chain = flow.Chain(config.noise, K, SCALE)
    return make_update(predict, critic, config, chain, supervised_loss=supervised_loss)


@settings(max_examples=40, deadline=None)
@given(coef=st.floats(0, 10), share=st.floats(0, 1), decay=st.integers(1, 50), step=st.integers(0, 100))
def test_the_weight_falls_linearly_and_stays(coef, share, decay, step):
    weight = DemonstrationsConfig(coef=coef, final_coef=share * coef, decay_updates=decay)
    expected = np.interp(step, [0, decay], [coef, share * coef])
    assert float(coef_at(weight, jnp.int32(step))) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_without_a_decay_the_weight_is_constant():
    assert float(coef_at(DemonstrationsConfig(coef=0.7), jnp.int32(9))) == pytest.approx(0.7)


def test_policy_steps_follow_ppo_and_the_weighted_supervised_loss_in_float64():
    """Zero advantages leave them alone; hand-derived gradients of the linear head, weight decaying."""
    weight = DemonstrationsConfig(coef=3.0, final_coef=1.0, decay_updates=4, batch_size=7)
    config = recipe(num_epochs=2, minibatch_size=CAPACITY, lr=0.1, demonstrations=weight)
    train_state, demos = new_state(config), demonstrations()
    batch = collect(train_state.params, config, CAPACITY, seed=1)
    batch = batch.replace(advantages=jnp.zeros(CAPACITY))
    host = jax.tree.map(lambda x: np.asarray(x, np.float64), demos)
    theta = np.concatenate([np.ravel(train_state.params["weight"]), train_state.params["bias"]])
    key = train_state.key
    after_epochs = config.optimizer.num_epochs + 1
    draws = [  # one minibatch an epoch: two an update
        jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, update), after_epochs), number)
        for update in range(2)
        for number in range(2)
    ]
    losses = []

    def gradient(theta):
        number = len(losses)
        rows_key, noise_key = jax.random.split(draws[number])
        rows = np.asarray(jax.random.randint(rows_key, (7,), 0, M))
        x_t = np.asarray(jax.random.normal(noise_key, (7, H, A)), np.float64)
        proprio, action = host.proprio[rows], host.action[rows]
        error = (proprio @ theta[: P * A].reshape(P, A) + theta[P * A :])[:, None] + 0.05 * x_t - action
        losses.append((error**2).mean())
        row = (3.0 - 2.0 * (number // 2) / 4) * 2 * error.sum(1) / error.size
        return np.concatenate([(proprio.T @ row).ravel(), row.sum(0)])

    expected = adam(gradient, theta.astype(np.float64), 0.1, 4)
    update, metrics = update_of(config), []
    for _ in range(2):
        train_state, logged = update(train_state, batch, CAPACITY, demos)
        metrics.append({name: float(value) for name, value in logged.items()})
    actual = np.concatenate([np.ravel(train_state.params["weight"]), train_state.params["bias"]])
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert [row["train/demonstrations_coef"] for row in metrics] == pytest.approx([3.0, 2.5])
    expected_losses = np.reshape(losses, (2, 2)).mean(1)
    assert [row["train/demonstrations_loss"] for row in metrics] == pytest.approx(
        list(expected_losses), rel=1e-4
    )


def test_it_adds_to_the_policy_objective_and_leaves_the_critic():
    weight = DemonstrationsConfig(coef=0.5, batch_size=7)
    config, demos = recipe(num_epochs=1, minibatch_size=CAPACITY, demonstrations=weight), demonstrations()
    batch = collect(new_state(config).params, config, CAPACITY, seed=2)
    update = make_update(predict, critic, config, flow.Chain(config.noise, K, SCALE))
    plain, before = update(new_state(config), batch, CAPACITY)
    held, after = update_of(config)(new_state(config), batch, CAPACITY, demos)
    gain = float(after["train/policy_loss"]) - float(before["train/policy_loss"])
    assert gain == pytest.approx(0.5 * float(after["train/demonstrations_loss"]), rel=1e-4)
    assert_same(held.critic_params, plain.critic_params)
    # Not the weights: Adam's first step goes by the gradient's sign alone.
    assert float(after["train/grad_norm"]) != pytest.approx(float(before["train/grad_norm"]), rel=1e-3)


def test_a_resumed_run_draws_what_an_unbroken_one_does(tmp_path):
    config = recipe(
        demonstrations=DemonstrationsConfig(coef=1.0, final_coef=0.5, decay_updates=3, batch_size=3)
    )
    update, demos = update_of(config), demonstrations()
    batches = [collect(new_state(config).params, config, CAPACITY, seed=n) for n in range(4)]

    def run(state, todo):
        for batch in todo:
            state, _ = update(state, batch, CAPACITY, demos)
        return state

    whole = run(new_state(config), batches)
    store.save(tmp_path / "orbax", run(new_state(config), batches[:2]))
    resumed = store.restore(tmp_path / "orbax", new_state(config, seed=1))
    assert_same(run(resumed, batches[2:]), whole)


def test_the_loop_pulls_the_policy_to_what_was_demonstrated(tmp_path):
    """Demonstrated: w = 1. Episodes without rewards pull nowhere else."""
    demos = Demonstrations(
        features=jnp.linspace(-1, 1, 6), proprio=jnp.zeros((6, 1)), domain_id=jnp.zeros(6, jnp.int32),
        action=jnp.broadcast_to(jnp.linspace(-1, 1, 6)[:, None, None], (6, H, A)),
    )  # fmt: skip
    config = make_recipe(
        toy_run.RECIPE, lr=0.05, gamma=0.0, gae_lambda=0.0, normalize=False,
        demonstrations=DemonstrationsConfig(coef=1.0, batch_size=16),
    )  # fmt: skip
    versions = []

    def receive(timeout):
        item = toy_run.episode(0, 2, terminated=True, version=versions[-1])
        observations = dataclasses.replace(item.observations, images=np.zeros_like(item.observations.images))
        return dataclasses.replace(item, observations=observations, reward=np.zeros_like(item.reward))

    updates = by_recipe.run(
        toy_run.toy_policy(),
        toy_run.critic,
        toy_run.FROZEN,
        config,
        toy_run.fresh_state(config),
        total_steps=15,
        receive=receive,
        publish=lambda version, params: versions.append(version),
        stop=threading.Event(),
        demonstrations=demos,
    )
    losses = [update.metrics["train/demonstrations_loss"] for update in updates]
    assert losses[-1] < 0.1 * losses[0]


def test_x_vlas_loss_on_encoded_frames_is_its_supervised_loss():
    frames = next(data())
    params = init_params(XVLA_CONFIG, jax.random.key(0))
    policy = XVLAFlowPolicy(XVLA_CONFIG)
    trainable, frozen = policy.split(params)
    demos = encode(policy, frozen, frames)
    assert demos.domain_id.shape == (FRAMES,)
    key = jax.random.PRNGKey(5)
    actual = jax.jit(policy.supervised_loss)(
        trainable, demos.features, demos.proprio, demos.domain_id, demos.action, key
    )

    @jax.jit
    def supervised(params, frames, key):
        time_key, noise_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (FRAMES, XVLA_CONFIG.chunk_size, XVLA_CONFIG.dim_action))
        return XVLA(XVLA_CONFIG).apply(
            {"params": params},
            normalize_images(frames.images),
            *(frames.tokens, frames.proprio, frames.domain_id, frames.action),
            *(noise, sample_times(time_key, FRAMES)),
            method="supervised_loss",
        )

    parts = supervised(params, jax.tree.map(jnp.asarray, frames), key)
    assert float(actual) == pytest.approx(sum(map(float, parts.values())), rel=1e-5)


def test_encoding_in_blocks_equals_encoding_at_once():
    """More frames than a block, and not a multiple of one."""
    few = [next(data(step)) for step in range(3)]
    frames = type(few[0])(*(np.concatenate(column)[:41] for column in zip(*few)))
    policy = XVLAFlowPolicy(XVLA_CONFIG)
    _, frozen = policy.split(init_params(XVLA_CONFIG, jax.random.key(0)))
    demos = encode(policy, frozen, frames)
    expected = jax.jit(policy.encode)(frozen, frames.images, frames.tokens)
    for actual, wanted in zip(jax.tree.leaves(demos.features), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-5)
