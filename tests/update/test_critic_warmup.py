"""The first updates of a run may be the critic's alone."""

import threading

import by_recipe
import jax
import numpy as np
import pytest
import toy_run
from by_recipe import make_recipe
from toy_update import CAPACITY, assert_same, collect, new_state, padded, recipe, update_of

from pirl_jax.recipe import CriticConfig
from pirl_jax.trees import store

WARMUP = 2
CONFIG = make_recipe(
    recipe(target_kl=0.5, adaptive_lr=True, lr_warmup_steps=3),
    critic=CriticConfig(lr=1e-2, warmup_updates=WARMUP),
)
SIZES = (CAPACITY, 17, 20, 9)
POLICY = ("params", "opt_state", "lr")


@pytest.fixture(scope="module")
def update():
    return update_of(CONFIG)


def batches():
    return [padded(collect(new_state(CONFIG).params, CONFIG, n, seed=n)) for n in SIZES]


def policy_of(state):
    return jax.device_get([getattr(state, name) for name in POLICY])


def test_the_policy_is_bit_identical_until_the_critic_is_warm_and_moves_then(update):
    state = new_state(CONFIG)
    start, critic = policy_of(state), jax.device_get(state.critic_params)
    for number, (batch, n) in enumerate(zip(batches(), SIZES)):
        state, metrics = update(state, batch, n)
        assert int(state.updates) == number + 1
        assert not np.array_equal(state.critic_params["weight"], critic["weight"])
        critic = jax.device_get(state.critic_params)
        if number < WARMUP:
            assert_same(policy_of(state), start)
            assert float(metrics["train/value_loss"]) > 0
            assert int(metrics["train/policy_steps"]) == 0
            assert not bool(metrics["train/kl_stopped"])
        else:
            assert int(metrics["train/policy_steps"]) > 0
    assert not np.array_equal(state.params["weight"], start[0]["weight"])


def test_the_first_policy_step_after_it_is_the_one_an_unwarmed_run_would_take(update):
    """No trace of the warm-up in moments, lr or lr warm-up; only the draws differ, and there is one batch."""
    plain = make_recipe(CONFIG, critic=CriticConfig(lr=1e-2), num_epochs=1, minibatch_size=CAPACITY)
    warmed = make_recipe(plain, critic=CONFIG.critic)
    batch = collect(new_state(plain).params, plain, CAPACITY, seed=1)
    expected, _ = update_of(plain)(new_state(plain), batch, CAPACITY)
    state, step = new_state(warmed), update_of(warmed)
    for _ in range(WARMUP + 1):
        state, _ = step(state, batch, CAPACITY)
    for actual, wanted in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params)):
        np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("stop", range(1, len(SIZES)))
def test_a_run_resumed_inside_or_after_the_warm_up_equals_an_unbroken_one(update, stop, tmp_path):
    def run(state, start, end):
        for batch, n in list(zip(batches(), SIZES))[start:end]:
            state, _ = update(state, batch, n)
        return state

    whole = run(new_state(CONFIG), 0, len(SIZES))
    store.save(tmp_path / "orbax", run(new_state(CONFIG), 0, stop))
    resumed = store.restore(tmp_path / "orbax", new_state(CONFIG, seed=1))
    assert_same(run(resumed, stop, len(SIZES)), whole)


def test_actors_keep_playing_with_the_same_weights_under_growing_versions(tmp_path):
    pushes = []
    config = make_recipe(toy_run.RECIPE, critic=CriticConfig(warmup_updates=WARMUP))

    def receive(timeout):
        return toy_run.episode(len(pushes), 2, terminated=True, version=pushes[-1][0])

    updates = by_recipe.run(
        toy_run.toy_policy(),
        toy_run.critic,
        toy_run.FROZEN,
        config,
        toy_run.fresh_state(config),
        total_steps=WARMUP + 1,
        receive=receive,
        publish=lambda version, behaviour: pushes.append((version, float(behaviour.params["w"]))),
        stop=threading.Event(),
    )
    metrics = [update.metrics for update in updates]
    assert [version for version, _ in pushes] == [1, 2, 3, 4]
    start = float(toy_run.PARAMS["w"])
    assert [weight == start for _, weight in pushes] == [True, True, True, False]
    assert [row["dropped/unknown_version"] for row in metrics] == [0, 0, 0]
    assert [row["train/policy_steps"] > 0 for row in metrics] == [False, False, True]
