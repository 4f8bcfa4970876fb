"""Chunks of a policy that is not known any more: nothing to the policy, and all there is to the critic."""

import dataclasses
import itertools
from collections import Counter

import by_recipe
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_run
import toy_update
from by_recipe import make_recipe
from quick import quick
from toy_run import RECIPE, STD, episode, evaluate, fresh_state, toy_policy

from pirl_jax.likelihood import flow
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.rollout.collect import Collected
from pirl_jax.rollout.scoring import Scorer
from pirl_jax.rows import cut
from pirl_jax.training import loop, parts
from pirl_jax.update import losses, objective
from pirl_jax.update.objective import FixedPolicies, Minibatch
from pirl_jax.update.update import Programs

W, K, REFERENCE = 0.3, toy_run.K, 0.7
FROZEN = {"scale": jnp.float32(0.01)}
"""Features of about 1."""
PLAYED = {v: Behaviour({"w": jnp.float32(W + 0.04 * (v - 3))}, v - 1, STD - 0.01 * v) for v in (2, 3, 4)}
VERSIONS = ([1, 1, 2, 3], [2, 4, 4], [1, 4], [3, 3, 4, 4])
"""Of which 1 is not known any more."""


def scored():
    """Episodes whose versions change, scored; with what they were played."""
    items = [episode(i, len(v), terminated=bool(i % 2), version=v) for i, v in enumerate(VERSIONS)]
    return items, Scorer(toy_policy(), RECIPE.noise, (4,)).together(FROZEN, items, PLAYED)


def recipe_of(aggregation, weighting, estimator="gae", **changes):
    return make_recipe(
        RECIPE,
        episodes_per_update=len(VERSIONS),
        aggregation=aggregation,
        loss_weighting=weighting,
        estimator=estimator,
        group_size=2 if estimator == "group" else 1,
        reference_kl_coef=0.2,
        **changes,
    )


def double(tree):
    return jax.tree.map(
        lambda x: np.asarray(x, np.float64) if np.asarray(x).dtype == np.float32 else np.asarray(x), tree
    )


def policy_gradient(batch, n, recipe):
    """The learner's, of the whole batch at once, in float64."""
    chain = flow.Chain(recipe.noise, K, np.array([1.0, 0.0]))
    method = by_recipe.method_of(toy_policy().predict, toy_run.critic, recipe, chain)
    points = cut(batch, np.arange(n))
    with jax.enable_x64(True):
        points = jax.tree.map(jnp.asarray, double(points))

        @jax.jit
        def loss(w, reference, points):
            there = objective.distribution(method, {"w": reference}, points)
            rows = Minibatch(points, FixedPolicies(points.old_log_prob, there), jnp.ones(n))
            total = losses.total(rows.points.step_mask, rows.weight, recipe.objective.aggregation)
            return jax.value_and_grad(
                lambda w: objective.policy_objective(method, {"w": w}, rows, total), has_aux=True
            )(w)

        (value, metrics), gradient = loss(jnp.float64(W), jnp.float64(REFERENCE), points)
        return float(value), float(gradient), {name: float(x) for name, x in metrics.items()}


class Reference:
    """The formulas in loops and float64, with the masked chunks left out of everything but GAE."""

    def __init__(self, items, config):
        self.config, self.items = config, items
        self.known = [[v in PLAYED for v in item.version] for item in items]
        self.features = [
            float(FROZEN["scale"]) * item.observations.images.astype(np.float64).mean((1, 2, 3, 4))
            for item in items
        ]
        self.advantages = self.of_groups() if config.advantage.estimator == "group" else self.of_gae()

    def of_gae(self):
        found, gamma, lam = [], self.config.advantage.gamma, self.config.advantage.gae_lambda
        for item, features in zip(self.items, self.features):
            values, following, backwards = 0.7 * features, 0.0, []
            values[-1] *= not item.terminated
            for t in reversed(range(len(item))):
                following = item.reward[t] + gamma * values[t + 1] - values[t] + gamma * lam * following
                backwards.append(following)
            found.append(backwards[::-1])
        terms = [
            [found[e][t] for t in range(len(item)) if self.known[e][t] for _ in self.units(item, t)]
            for e, item in enumerate(self.items)
        ]
        flat = np.concatenate(terms)
        weights = np.concatenate([self.weights(each) for each in terms])
        mean = np.average(flat, weights=weights)
        std = np.sqrt(np.average((flat - mean) ** 2, weights=weights))
        return [[(a - mean) / std for a in each] for each in found]

    def of_groups(self):
        returns = np.array([item.reward.astype(np.float64).sum() for item in self.items]).reshape(-1, 2)
        relative = (returns - returns.mean(1, keepdims=True)) / returns.std(1, keepdims=True)
        return [[a] * len(item) for a, item in zip(relative.ravel(), self.items)]

    def weights(self, terms):
        """Of an episode's terms in a mean over all."""
        return np.full(len(terms), 1 / len(terms) if self.config.objective.loss_weighting == "episode" else 1)

    def units(self, item, t):
        """The steps that a ratio is taken of together."""
        steps = range(item.executed[t])
        return [list(steps)] if self.config.objective.aggregation == "chunk" else [[h] for h in steps]

    def loss_and_slope(self):
        """The policy's loss and its derivative by w."""
        ppo, kls = [], []
        for e, item in enumerate(self.items):
            for t in np.flatnonzero(self.known[e]):
                behaviour, x = PLAYED[item.version[t]], self.features[e][t]
                std = float(np.float32(behaviour.level))
                rest = item.observations.proprio[t, 0] + 1 / K
                outcome = item.latents[t, 2, :, 0].astype(np.float64)

                def log_prob(w, x=x, rest=rest, outcome=outcome, std=std):
                    return -0.5 * ((outcome - w * x - rest) / std) ** 2

                change = log_prob(W) - log_prob(float(behaviour.params["w"]))
                slope = (outcome - W * x - rest) * x / std**2
                for unit in self.units(item, t):
                    ratio, gain = np.exp(change[unit].sum()), self.advantages[e][t]
                    clipped = min(max(ratio, 0.8), 1.2)
                    free = float(ratio * gain <= clipped * gain)
                    ppo.append(
                        (e, -min(ratio * gain, clipped * gain), -free * ratio * gain * slope[unit].sum())
                    )
                moved, n = (W - REFERENCE) * x / std, item.executed[t]
                kls.append((e, n * moved**2 / 2, n * moved * x / std))
        return np.array([self.mean(ppo, i) + 0.2 * self.mean(kls, i) for i in (1, 2)])

    def mean(self, terms, i):
        own = [np.array([term[i] for term in terms if term[0] == e]) for e in range(len(self.items))]
        return np.average(np.concatenate(own), weights=np.concatenate([self.weights(each) for each in own]))


@pytest.mark.parametrize("estimator", ["gae", "group"])
@pytest.mark.parametrize("weighting", ["chunk", "episode"])
@pytest.mark.parametrize("aggregation", ["chunk", "action"])
def test_the_policys_gradient_is_of_the_formulas_that_leave_masked_chunks_out(
    aggregation, weighting, estimator
):
    items, episodes = scored()
    config = recipe_of(aggregation, weighting, estimator)
    collected = [by_recipe.collected(each) for each in episodes]
    batch, n = by_recipe.make_batch(collected, config, evaluate(config), fresh_state(config))
    loss, slope, metrics = policy_gradient(batch, n, config)
    np.testing.assert_allclose((loss, slope), Reference(items, config).loss_and_slope(), rtol=2e-5)
    assert 0 < metrics["clip_fraction"] < 0.5  # there is a gradient to speak of


@pytest.mark.parametrize("weighting", ["chunk", "episode"])
def test_the_critic_learns_from_masked_chunks_like_from_others(weighting):
    _, episodes = scored()
    kept = [dataclasses.replace(each, step_mask=np.ones_like(each.step_mask)) for each in episodes]
    config = recipe_of("chunk", weighting)
    batches = [
        by_recipe.make_batch(
            [by_recipe.collected(x) for x in each], config, evaluate(config), fresh_state(config)
        )
        for each in (episodes, kept)
    ]
    for name in ("value_targets", "old_values", "critic_input", "share"):
        (masked, _), (whole, _) = batches
        np.testing.assert_array_equal(getattr(masked, name), getattr(whole, name), err_msg=name)


@pytest.mark.parametrize("behaviour", [2, 3, 4])
def test_a_chunks_ratio_is_one_at_the_parameters_that_chose_it_whatever_chose_the_others(behaviour):
    _, episodes = scored()
    config = recipe_of("chunk", "chunk")
    collected = [by_recipe.collected(each) for each in episodes]
    batch, n = by_recipe.make_batch(collected, config, evaluate(config), fresh_state(config))
    programs = parts.assemble(toy_policy(), toy_run.critic, config).programs
    points, versions = cut(batch, np.arange(n)), np.concatenate(VERSIONS)
    new = programs.proximal({"w": PLAYED[behaviour].params["w"]}, points)
    log_ratio = np.where(points.step_mask, np.asarray(new) - points.old_log_prob, 0).sum(1)
    np.testing.assert_allclose(log_ratio[versions == behaviour], 0, atol=1e-5)
    assert np.all(np.abs(log_ratio[(versions != behaviour) & (versions > 1)]) > 1e-3)


MASKED = np.isin(np.arange(20), [0, 3, 4, 11, 17, 19])


@pytest.mark.parametrize(
    ("aggregation", "mode", "decoupled"),
    quick(
        itertools.product(("chunk", "action"), ("terminal", "flow_noise"), (False, True)),
        *[("chunk", "terminal", True), ("action", "flow_noise", False), ("action", "terminal", False)],
    ),
)
def test_loss_gradient_and_metrics_are_those_of_the_other_points_alone(aggregation, mode, decoupled):
    """To the last bits of float64, whatever the masked points hold, regularisers included."""
    config = toy_update.recipe(
        mode=mode,
        aggregation=aggregation,
        decoupled=decoupled,
        reference_kl_coef=0.3,
        entropy_coef=0.1 * (mode == "flow_noise"),
    )
    method = toy_update.method_of(config)
    params = toy_update.new_state(config).params
    batch = toy_update.collect(params, config, 20, seed=1, levels=(0.8, 1.3))
    batch = batch.replace(policy_share=jnp.linspace(0.5, 1.5, 20))
    with jax.enable_x64(True):
        params, batch = jax.tree.map(jnp.asarray, double((params, batch)))
        moved = jax.tree.map(lambda p: p + 0.03, params)

        @jax.jit
        def outcome(points, moved, params):
            proximal = points.old_log_prob
            if decoupled:
                at = objective.distribution(method, moved, points)
                proximal = flow.log_density(method.policy.chain, at, points.latents)
            reference = objective.distribution(method, jax.tree.map(lambda p: p - 0.1, params), points)
            rows = Minibatch(points, FixedPolicies(proximal, reference), jnp.ones(len(points.level)))
            total = losses.total(points.step_mask, rows.weight, aggregation)
            return jax.value_and_grad(
                lambda p: objective.policy_objective(method, p, rows, total), has_aux=True
            )(moved)

        left = outcome(jax.tree.map(lambda leaf: np.asarray(leaf)[~MASKED], batch), moved, params)
        spoilt = batch.replace(
            step_mask=batch.step_mask & ~MASKED[:, None],
            old_log_prob=jnp.where(MASKED[:, None], 3.0, batch.old_log_prob),
            advantages=jnp.where(MASKED, 100.0, batch.advantages),
            latents=jnp.where(MASKED[:, None, None, None], 9.0, batch.latents),
            level=jnp.where(MASKED, 0.01, batch.level),
            policy_share=jnp.where(MASKED, 7.0, batch.policy_share),
        )
        got = outcome(spoilt, moved, params)
    for (path, expected), actual in zip(
        jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(got), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14, err_msg=str(path))


def test_a_minibatch_of_masked_chunks_moves_the_critic_and_not_the_policy():
    """Not by Adam's momentum either; it is no failed step."""
    config = toy_update.recipe(num_epochs=2, minibatch_size=1, weight_decay=0.1)
    batch = toy_update.collect(toy_update.new_state(config).params, config, 20, seed=3)
    batch = batch.replace(step_mask=batch.step_mask & ~MASKED[:, None])
    update = toy_update.update_of(config)
    after, metrics = update(toy_update.new_state(config), toy_update.padded(batch), 20)
    assert int(optax.tree_utils.tree_get(after.opt_state, "count")) == 2 * (~MASKED).sum()
    assert float(metrics["train/policy_steps"]) == 2 * (~MASKED).sum()
    assert float(metrics["train/skipped_steps"]) == 0

    state = toy_update.new_state(config)
    start = jax.device_get(state)
    nothing = batch.replace(step_mask=jnp.zeros_like(batch.step_mask))
    after, metrics = update(state, toy_update.padded(nothing), 20)
    toy_update.assert_same((after.params, after.opt_state), (start.params, start.opt_state))
    assert np.any(after.critic_params["weight"] != start.critic_params["weight"])
    assert (float(metrics["train/policy_steps"]), float(metrics["train/skipped_steps"])) == (0, 0)


def test_a_row_that_fills_a_minibatch_of_masked_chunks_does_not_count_for_it():
    config = toy_update.recipe(num_epochs=30, minibatch_size=8)
    few = np.isin(np.arange(20), [5, 6])
    state = toy_update.new_state(config)
    orders = np.asarray(Programs(toy_update.method_of(config)).orders(state, 20, toy_update.CAPACITY))
    learns = few[orders[:, :20]]
    minibatches = [[epoch[j * 20 // 3 : (j + 1) * 20 // 3] for j in range(3)] for epoch in learns]
    # Some of masked points are filled up to the static shape with one that is not.
    assert any(epoch[0] and not part.any() for epoch, of in zip(learns, minibatches) for part in of)
    batch = toy_update.collect(state.params, config, 20, seed=3)
    _, metrics = toy_update.update_of(config)(
        state, toy_update.padded(batch.replace(step_mask=jnp.ones((20, 3), bool) & few[:, None])), 20
    )
    assert float(metrics["train/policy_steps"]) == sum(m.any() for epoch in minibatches for m in epoch)


def test_advantages_of_masked_chunks_alone_are_no_signal():
    _, episodes = scored()
    config = recipe_of("chunk", "chunk", normalize=False)
    one = [dataclasses.replace(each, reward=np.zeros_like(each.reward)) for each in episodes]
    one[0].reward[:] = [0, 1, 0, 0]  # earned by a chunk that is masked; γλ = 0 credits no other
    config = make_recipe(config, gae_lambda=0.0, gamma=0.0)
    state = fresh_state(config).replace(critic_params={"v": jnp.float32(0)})
    collected = [by_recipe.collected(each) for each in one]
    batch, _ = by_recipe.make_batch(collected, config, evaluate(config), state)
    assert not batch.advantages.any()
    assert batch.value_targets.any()


def test_metrics_are_of_chunks():
    _, episodes = scored()
    updates = [np.where(np.array(v) == 1, -1, np.array(v) - 1) for v in VERSIONS]
    collected = [Collected(*pair) for pair in zip(episodes, updates)]
    metrics = loop._episode_metrics(collected, Counter(gap=3), {}, update=3)
    versions = np.concatenate(VERSIONS)
    assert metrics["dropped/stale_chunks"] == (versions == 1).sum() == 3
    assert metrics["train/stale_fraction"] == (versions < 4).mean()
    levels = [STD - 0.01 * v for v in versions if v > 1]
    assert metrics["train/noise_level"] == pytest.approx(np.mean(levels), rel=1e-6)
    assert metrics["dropped/gap"] == 3
