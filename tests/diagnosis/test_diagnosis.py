"""What the doctor says of healthy and of broken runs of a toy policy."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_recipe import make_recipe
from toy_run import CRITIC, FROZEN, PARAMS, RECIPE, A, H, K, critic, episode, fresh_state, toy_policy

from pirl_jax.doctor import _trial_parts, diagnose
from pirl_jax.likelihood import flow, noise_head
from pirl_jax.likelihood.modes import MODES
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.behaviour import Behaviour

HEALTHY = make_recipe(RECIPE, lr=1e-3, noise=NoiseConfig(level=0.5))


def params_of(recipe):
    """The toy's, and a noise head's where the mode has one."""
    return PARAMS | noise_head.init(toy_policy(), recipe.noise, jax.random.PRNGKey(0))


def played(seed, recipe, success):
    """An episode whose chunks and log-probabilities come from the policy itself."""
    policy, item = toy_policy(), episode(seed, 3, terminated=success)
    # Small features: the toy's actions are then about as large as its noise.
    images = (item.observations.images / 100).astype(np.uint8)
    observations = dataclasses.replace(item.observations, images=images)
    features = FROZEN["scale"] * images.astype(np.float32).mean((1, 2, 3, 4))[:3]

    def predict(x_t, t):
        return policy.predict(PARAMS, jnp.asarray(features), x_t, t, item.observations.proprio[:3], None)

    mode, params = MODES[recipe.noise.mode], params_of(recipe)
    k = jnp.full(3, mode.first_steps(K)[0], jnp.int32)
    head = noise_head.log_multiplier_of(policy, recipe.noise)
    spread = head and partial(head, params, jnp.asarray(features), item.observations.proprio[:3])
    keys = jax.random.split(jax.random.PRNGKey(seed))
    eps0 = jax.random.normal(keys[0], (3, H, A))
    chunk = flow.sample(
        flow.Chain.of(policy, recipe.noise),
        predict,
        eps0,
        jax.random.split(keys[1], 3),
        k,
        log_multiplier=spread,
    )
    reward = np.zeros(3, np.float32)
    reward[-1] = success
    return dataclasses.replace(
        item,
        observations=observations,
        latents=np.asarray(chunk.latents),
        denoise_step=np.asarray(k),
        log_prob=np.asarray(chunk.log_prob),
        reward=reward,
    )


def findings(
    recipe=HEALTHY, change=lambda item: item, outcomes=(True, False) * 4, policy=None, lasts=1, **options
):
    """Of one episode for each outcome, the last of which counts ``lasts`` times."""
    episodes = [change(played(i, recipe, won)) for i, won in enumerate(outcomes)]
    episodes += episodes[-1:] * (lasts - 1)
    params = params_of(recipe)
    state = fresh_state(recipe, params)
    behaviour = Behaviour(params, 0, recipe.noise.level)
    policy = policy or toy_policy()
    found = diagnose(policy, critic, FROZEN, recipe, state, episodes, behaviour, **options)
    return {finding.name: finding for finding in found}


def bad(found):
    return [name for name, finding in found.items() if not finding.ok]


@pytest.fixture(scope="module")
def healthy():
    return findings()


def test_a_healthy_run_has_no_complaints(healthy):
    assert bad(healthy) == []
    assert "nats a chunk" in healthy["actor and learner agree on log-probabilities"].value
    assert any(name.startswith("noise reaching the executed action, joints") for name in healthy)
    assert "of 8" in healthy["episodes differ in return"].value


def test_so_has_one_whose_noise_is_learned():
    noisy = NoiseConfig(mode="flow_noise", level=0.3, head_hidden_dims=(4,))
    found = findings(make_recipe(HEALTHY, noise=noisy))
    assert bad(found) == []
    assert " in noise_head/bound" in found["gradient norm"].value


def test_the_noise_reported_is_the_noise_that_was_drawn(healthy):
    text = healthy["noise reaching the executed action, joints"].value
    std = float(text.split()[1])
    assert abs(std / 0.5 - 1) < 0.3  # some fifty draws


def test_noise_is_reported_in_the_units_of_the_environment(healthy):
    name = "noise reaching the executed action, joints"
    scaled = findings(unnormalize=lambda action: 20.0 * action - 3.0)
    ours, theirs = (float(found[name].value.split()[1]) for found in (healthy, scaled))
    assert theirs == pytest.approx(20 * ours, rel=0.01)  # three digits are printed


def test_an_actor_with_other_log_probabilities_is_noticed():
    found = findings(change=lambda item: dataclasses.replace(item, log_prob=item.log_prob + 0.5))
    assert bad(found) == ["actor and learner agree on log-probabilities"]
    assert "same config and base checkpoint" in str(found["actor and learner agree on log-probabilities"])


@pytest.mark.slow
def test_what_a_bfloat16_encoder_rounds_is_no_fault():
    policy = toy_policy()
    half = dataclasses.replace(policy, encode=lambda *inputs: policy.encode(*inputs).astype(jnp.bfloat16))

    def off(item):
        """By 0.05 nats a chunk."""
        return dataclasses.replace(item, log_prob=item.log_prob + 0.05 / item.executed[:, None])

    assert bad(findings(change=off)) == ["actor and learner agree on log-probabilities"]
    assert bad(findings(change=off, policy=half)) == []


def test_episodes_without_a_difference_are_noticed():
    assert "episodes differ in return" in bad(findings(outcomes=(False,) * 4))


@pytest.mark.slow
def test_one_success_that_carries_the_update_is_noticed(healthy):
    assert "above zero" in healthy["advantages"].value

    def prized(item):
        """More than the toy critic's errors."""
        return dataclasses.replace(item, reward=100 * item.reward)

    assert "advantages" not in bad(findings(change=prized))
    assert "advantages" in bad(findings(change=prized, outcomes=(True, False), lasts=200))


def test_noise_that_is_too_small_is_noticed():
    quiet = make_recipe(HEALTHY, noise=NoiseConfig(level=1e-5))
    assert "noise reaching the executed action, joints" in bad(findings(quiet))


def test_an_update_that_goes_too_far_is_noticed_and_the_state_is_left_alone():
    wild = make_recipe(HEALTHY, lr=5.0, num_epochs=8)
    found = findings(wild)
    assert "the first update" in bad(found)
    assert float(PARAMS["w"]) == pytest.approx(0.3)
    assert float(CRITIC["v"]) == pytest.approx(0.7)


def test_a_recipe_of_groups_is_tried_without_them():
    """Also where it has settings that a recipe without groups would refuse."""
    grouped = make_recipe(
        HEALTHY, estimator="group", group_size=2, episodes_per_update=4, group_return_range=(0.1, 0.9)
    )
    parts = _trial_parts(toy_policy(), critic, grouped, 3)
    assert parts.recipe.rollout.episodes_per_update == 3
    assert parts.method.value is not None


@pytest.mark.parametrize(("microbatch_size", "at_a_time"), [("auto", 4), (3, 3)])
def test_a_trial_has_no_more_in_work_at_a_time_than_the_run(microbatch_size, at_a_time):
    """Though it evaluates all that was played as one minibatch."""
    recipe = make_recipe(HEALTHY, minibatch_size=4, microbatch_size=microbatch_size)
    assert _trial_parts(toy_policy(), critic, recipe, 3).method.microbatch_size == at_a_time
