"""What a critic is shown: pooled features, of which parameters, and when."""

import dataclasses
import threading

import by_recipe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_run
from by_recipe import create, make_evaluate, make_recipe, make_scorer
from toy_frames import CONFIG as XVLA_CONFIG
from toy_frames import data

from pirl_jax.likelihood.stochastic import Observed
from pirl_jax.recipe import CriticConfig
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.training import parts
from pirl_jax.update import critic as critics
from pirl_jax.xvla.init import init_params
from pirl_jax.xvla.model import XVLAFeatures
from pirl_jax.xvla.policy import XVLAFlowPolicy

ROWS = 11


@pytest.fixture(scope="module")
def xvla():
    """Policy, parameters, and eleven encoded observations."""
    params = init_params(XVLA_CONFIG, jax.random.key(0))
    policy = XVLAFlowPolicy(XVLA_CONFIG)
    trainable, frozen = policy.split(params)
    frames = next(data())
    features = jax.jit(policy.encode)(frozen, frames.images[:ROWS], frames.tokens[:ROWS])
    return (
        policy,
        trainable,
        features,
        jnp.asarray(frames.proprio[:ROWS]),
        jnp.asarray(frames.domain_id[:ROWS]),
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_v_vlm_sees_the_mean_vlm_token_in_float32(xvla, dtype):
    policy, trainable, features, proprio, domain_id = xvla
    features = XVLAFeatures(*(part.astype(dtype) for part in features))
    seen = policy.critic_input("vlm", trainable, features, proprio, domain_id)
    assert seen.dtype == jnp.float32
    np.testing.assert_allclose(seen, np.asarray(features.vlm, np.float64).mean(1), rtol=1e-5, atol=1e-6)


def test_v_expert_sees_the_mean_of_what_the_head_decodes_at_pure_noises_mean(xvla):
    """``predict`` is the decoder on the hidden states: solve it for their mean."""
    policy, trainable, features, proprio, domain_id = xvla
    seen = policy.critic_input("expert", trainable, features, proprio, domain_id)
    assert seen.shape == (ROWS, XVLA_CONFIG.hidden_size)
    zeros = jnp.zeros((ROWS, XVLA_CONFIG.chunk_size, XVLA_CONFIG.dim_action))
    actions = policy.predict(trainable, features, zeros, jnp.ones(ROWS), proprio, domain_id)
    decoder = trainable["transformer"]["action_decoder"]
    weight = np.asarray(decoder["fc"]["weight"], np.float64)[domain_id].reshape(ROWS, -1, zeros.shape[-1])
    bias = np.asarray(decoder["bias"]["weight"], np.float64)[domain_id]
    expected = np.einsum("bd,bda->ba", np.asarray(seen, np.float64), weight) + bias
    np.testing.assert_allclose(np.asarray(actions, np.float64).mean(1), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["vlm", "expert"])
def test_values_are_the_critics_of_these_inputs_whatever_the_block(xvla, name):
    policy, trainable, features, proprio, domain_id = xvla
    critic = CriticConfig(hidden_dims=(6,), input=name)
    critic_params = critics.init(policy, critic, XVLA_CONFIG.dim_proprio, jax.random.key(1))
    for size in (3, 64):
        recipe = make_recipe(toy_run.RECIPE, critic=critic, minibatch_size=size)
        train_state = create(trainable, critic_params, recipe, seed=0)
        inputs, values = make_evaluate(policy, critics.value_function((6,)), recipe)(
            train_state, Observed(features, proprio, domain_id)
        )
        expected = policy.critic_input(name, trainable, features, proprio, domain_id)
        np.testing.assert_allclose(inputs, expected, atol=1e-5)
        wanted = critics.value_function((6,))(critic_params, expected, proprio)
        np.testing.assert_allclose(values, wanted, atol=1e-5)


def moving_policy():
    """The toy policy, whose expert input is its parameter."""

    def expert(params, features, proprio, domain_id):
        return jnp.broadcast_to(params["w"], domain_id.shape)

    return dataclasses.replace(toy_run.toy_policy(), critic_inputs={"expert": expert})


def test_an_update_keeps_the_inputs_it_began_with_and_value_only_steps_take_the_new_ones(
    tmp_path, monkeypatch
):
    shown = {"update": [], "extra": []}
    recipe = make_recipe(
        toy_run.RECIPE, lr=0.1, critic=CriticConfig(hidden_dims=(4,), input="expert", extra_steps=1)
    )

    def spy(name, make):
        def wrapped(*args):
            run = make(*args)

            def call(train_state, batch, *rest):
                shown[name].append((float(train_state.params["w"]), np.unique(batch.critic_input[: rest[0]])))
                return run(train_state, batch, *rest)

            return call

        return wrapped

    monkeypatch.setattr(parts, "make_update", spy("update", parts.make_update))
    monkeypatch.setattr(parts, "make_critic_update", spy("extra", parts.make_critic_update))
    versions = []
    updates = by_recipe.run(
        moving_policy(),
        toy_run.critic,
        toy_run.FROZEN,
        recipe,
        toy_run.fresh_state(recipe),
        total_steps=2,
        receive=lambda timeout: toy_run.episode(len(versions), 2, terminated=True, version=versions[-1]),
        publish=lambda version, params: versions.append(version),
        stop=threading.Event(),
    )
    list(updates)
    for name in ("update", "extra"):
        assert len(shown[name]) == 2
        for weight, inputs in shown[name]:
            np.testing.assert_array_equal(inputs, np.float32([weight]))
    assert shown["update"][0][0] != shown["extra"][0][0] == shown["update"][1][0]


def test_the_value_of_the_final_observation_is_asked_too():
    """A truncated episode bootstraps from it, with the same input."""
    score = make_scorer(toy_run.toy_policy(), toy_run.FROZEN, toy_run.RECIPE)
    items = [toy_run.episode(seed, 2, terminated=False) for seed in range(3)]
    collected = [by_recipe.collected(score(item, Behaviour(toy_run.PARAMS, 0, 0.1))) for item in items]
    batch, n = by_recipe.make_batch(
        collected,
        toy_run.RECIPE,
        toy_run.evaluate(toy_run.RECIPE),
        toy_run.fresh_state(toy_run.RECIPE),
    )
    finals = [2.0 * item.observations.images[-1].astype(np.float64).mean() for item in items]
    np.testing.assert_allclose(batch.critic_input[n : n + 3], finals, rtol=1e-6)
    np.testing.assert_allclose(batch.old_values[n : n + 3], 0.7 * np.array(finals), rtol=1e-6)
