"""``loss_weighting=episode``: the mean over episodes of each episode's own mean, in float64 loops."""

import dataclasses

import by_recipe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_config import jit_by_config
from by_recipe import make_critic_update, make_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_run import RECIPE, A, H, evaluate, fresh_state
from toy_update import CAPACITY, assert_same, collect, critic, new_state, recipe, update_of

from pirl_jax.recipe import ObjectiveConfig
from pirl_jax.rollout.scoring import ScoredEpisode
from pirl_jax.update import losses
from pirl_jax.update.critic_steps import CriticBatch

T = RECIPE.rollout.max_chunks


def scored(rng: np.random.Generator, length: int) -> ScoredEpisode:
    executed = rng.integers(1, H + 1, length)
    mask = np.arange(H) < executed[:, None]
    old_log_prob = np.where(mask, rng.normal(size=(length, H)), 0).astype(np.float32)
    return ScoredEpisode(
        features=rng.normal(size=length + 1).astype(np.float32),
        proprio=rng.normal(size=(length + 1, 1)).astype(np.float32),
        domain_id=np.zeros(length + 1, np.int32),
        latents=rng.normal(size=(length, 3, H, A)).astype(np.float32),
        denoise_step=np.ones(length, np.int32),
        executed=executed.astype(np.int32),
        step_mask=mask,
        old_log_prob=old_log_prob,
        actor_log_prob=old_log_prob,
        level=np.full(length, 0.1, np.float32),
        reward=rng.normal(size=length).astype(np.float32),
        terminated=bool(rng.random() < 0.5),
        success=False,
    )


def batches(episodes, aggregation, advantage="gae", normalize=False):
    """The batch under either weighting, and which episode each point belongs to."""
    collected = [by_recipe.collected(episode) for episode in episodes]
    made = {}
    for weighting in ("chunk", "episode"):
        config = make_recipe(
            RECIPE,
            episodes_per_update=len(episodes),
            aggregation=aggregation,
            normalize=normalize,
            loss_weighting=weighting,
            estimator=advantage,
            group_size=len(episodes) if advantage == "group" else 1,
        )
        made[weighting], _ = by_recipe.make_batch(collected, config, evaluate(config), fresh_state(config))
    return made["chunk"], made["episode"], np.repeat(np.arange(len(episodes)), [len(e) for e in episodes])


def filled_up(x):
    """To the most points there are in a batch here: all batches are of one program."""
    return np.pad(x, [(0, 4 * T - len(x)), *[(0, 0)] * (x.ndim - 1)])


@jit_by_config
def policy_loss(config, new, old, advantages, mask, weight):
    return losses.policy_loss(new, old, old, advantages, mask, weight, config)


@jax.jit
def value_loss(values, old_values, targets, weight, share):
    return losses.value_loss(values, old_values, targets, weight, 0.2, 1e9, share)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, T), min_size=2, max_size=4),
    aggregation=st.sampled_from(["chunk", "action"]),
    advantage=st.sampled_from(["gae", "group"]),
)
def test_every_episode_counts_the_same_in_the_losses(seed, lengths, aggregation, advantage):
    rng = np.random.default_rng(seed)
    plain, weighted, owner = batches([scored(rng, n) for n in lengths], aggregation, advantage)
    n = len(owner)
    size = len(plain.advantages)
    mask = np.asarray(weighted.step_mask)
    old = np.asarray(weighted.old_log_prob, np.float64)
    new = np.where(mask, old + rng.normal(scale=0.3, size=old.shape), 0)
    values = np.asarray(weighted.old_values, np.float64)[:n] + rng.normal(size=size)
    advantages, targets, old_values = (
        np.asarray(x, np.float64)[:size] for x in (plain.advantages, plain.value_targets, plain.old_values)
    )
    surrogates, costs = [[] for _ in lengths], [[] for _ in lengths]
    for i, episode in enumerate(owner):
        executed = np.flatnonzero(mask[i])
        for steps in [executed] if aggregation == "chunk" else executed[:, None]:
            ratio = np.exp((new - old)[i, steps].sum())
            clipped = min(max(ratio, 0.8), 1.2)
            surrogates[episode].append(-min(ratio * advantages[i], clipped * advantages[i]))
        near = old_values[i] + min(max(values[i] - old_values[i], -0.2), 0.2)
        costs[episode].append(max((values[i] - targets[i]) ** 2, (near - targets[i]) ** 2) / 2)
    rows = [new, old, np.asarray(weighted.advantages, np.float64), mask, np.ones(n)]
    points = [values, old_values, targets, np.ones(n), np.asarray(weighted.share, np.float64)]
    with jax.enable_x64(True):
        policy, _ = policy_loss(ObjectiveConfig(aggregation=aggregation), *map(filled_up, rows))
        value = value_loss(*map(filled_up, points))
    assert float(policy) == pytest.approx(
        np.mean([np.mean(terms) for terms in surrogates]), rel=1e-5, abs=1e-6
    )
    assert float(value) == pytest.approx(np.mean([np.mean(terms) for terms in costs]), rel=1e-5)


@pytest.mark.parametrize("aggregation", ["chunk", "action"])
def test_normalised_advantages_are_standard_under_the_losss_own_weights(aggregation):
    rng = np.random.default_rng(1)
    chosen = [scored(rng, n) for n in (1, T, T)]
    for made in batches(chosen, aggregation, normalize=True)[:2]:
        n = sum(len(episode) for episode in chosen)
        steps = np.asarray(made.step_mask)[:n].sum(1) if aggregation == "action" else np.ones(n)
        # The loss is the mean of share·A over what it counts; the share is in the advantages already.
        share = np.ones(n)
        if made.share is not None:
            counts = [e.step_mask.sum() if aggregation == "action" else len(e) for e in chosen]
            share = losses.equal_shares(np.array(counts)).repeat([len(e) for e in chosen])
        values = np.asarray(made.advantages, np.float64)[:n] / share
        weights = steps * share
        assert np.average(values, weights=weights) == pytest.approx(0, abs=1e-5)
        assert np.average(values**2, weights=weights) == pytest.approx(1, abs=1e-4)


def test_a_batch_without_any_reward_has_no_advantages():
    """They would be the critic's errors, normalised to size 1."""
    rng = np.random.default_rng(2)
    failures = [dataclasses.replace(scored(rng, 2), reward=np.zeros(2, np.float32)) for _ in range(3)]
    plain, weighted, _ = batches(failures, "chunk", normalize=True)
    assert np.asarray(plain.old_values).any()
    assert not np.asarray(plain.advantages).any()
    assert not np.asarray(weighted.advantages).any()
    assert np.asarray(plain.value_targets).any()  # the critic learns of it


def test_without_advantages_the_policy_rests_and_the_critic_learns():
    config = recipe(num_epochs=2, minibatch_size=8, weight_decay=0.1)
    state = new_state(config)
    batch = collect(state.params, config, CAPACITY, seed=3)
    moved, _ = update_of(config)(jax.tree.map(jnp.copy, state), batch, CAPACITY)  # momentum
    start = jax.device_get(moved)
    after, metrics = update_of(config)(moved, batch.replace(advantages=jnp.zeros(CAPACITY)), CAPACITY)
    assert_same(after.params, start.params)
    assert_same(after.opt_state, start.opt_state)
    assert np.any(after.critic_params["weight"] != start.critic_params["weight"])
    assert (float(metrics["train/without_signal"]), float(metrics["train/policy_steps"])) == (1, 0)
    assert float(metrics["train/kl_stopped"]) == 0


def test_weighting_by_chunk_leaves_everything_as_it_is():
    rng = np.random.default_rng(0)
    plain, weighted, owner = batches([scored(rng, 2) for _ in range(3)], "chunk")
    assert plain.share is None
    # Episodes of one length are weighted equally anyway.
    np.testing.assert_array_equal(weighted.advantages, plain.advantages)
    np.testing.assert_array_equal(weighted.share[: len(owner)], 1)


def test_the_update_weights_the_critics_loss_and_the_kl_to_the_start():
    config = recipe(num_epochs=1, minibatch_size=CAPACITY, reference_kl_coef=0.3, value_clip=1e9)
    state = new_state(config)
    state = state.replace(reference=jax.tree.map(lambda x: x + 0.1, state.params))
    share = losses.equal_shares(np.array([2, 7, 15])).repeat([2, 7, 15])
    batch = collect(state.params, config, CAPACITY, seed=3)
    batch = batch.replace(share=jnp.asarray(share), policy_share=jnp.asarray(share))
    owner = np.repeat([0, 1, 2], [2, 7, 15])

    def mean(params):
        weight, bias = (np.asarray(params[name], np.float64) for name in ("weight", "bias"))
        return np.asarray(batch.proprio, np.float64) @ weight + bias

    moved = ((mean(state.params) - mean(state.reference)) ** 2).sum(1) / config.noise.level**2 / 2
    kl = moved * np.asarray(batch.step_mask).sum(1)
    errors = np.asarray(
        critic(state.critic_params, batch.critic_input, None) - batch.value_targets, np.float64
    )
    _, metrics = update_of(config)(state, batch, CAPACITY)
    for name, terms in (("reference_kl", kl), ("value_loss", errors**2 / 2)):
        expected = np.mean([terms[owner == episode].mean() for episode in range(3)])
        assert float(metrics[f"train/{name}"]) == pytest.approx(expected, rel=1e-4), name


def test_value_only_steps_are_weighted_too():
    config = recipe(extra_steps=1)
    state = new_state(config).replace(updates=jnp.int32(1))
    batch = collect(state.params, config, CAPACITY, seed=3)
    points = CriticBatch(batch.critic_input, batch.proprio, batch.value_targets)
    losses = []
    for share in (None, jnp.full(CAPACITY, 2.0)):
        fresh = jax.tree.map(jnp.copy, state)
        _, metrics = make_critic_update(critic, config)(fresh, points.replace(share=share), CAPACITY)
        losses.append(float(metrics["train/extra_value_loss"]))
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-5)


def test_the_kl_that_stops_an_update_is_not_weighted():
    config = recipe(num_epochs=1, minibatch_size=CAPACITY)
    batch = collect(new_state(config, seed=9).params, config, CAPACITY, seed=3)
    plain = update_of(config)(new_state(config), batch, CAPACITY)[1]
    shares = jnp.linspace(0.5, 1.5, CAPACITY)
    weighted = update_of(config)(
        new_state(config), batch.replace(share=shares, policy_share=shares), CAPACITY
    )[1]
    for name in ("approx_kl", "ratio_mean", "explained_variance"):
        assert float(weighted[f"train/{name}"]) == float(plain[f"train/{name}"])
