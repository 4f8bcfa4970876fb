"""From episodes to a batch, on a toy policy whose numbers can be worked out by hand."""

import dataclasses
import itertools
import threading
from collections import Counter

import by_recipe
import jax.numpy as jnp
import numpy as np
import pytest
from by_recipe import make_recipe, make_scorer
from toy_run import (
    CRITIC,
    FROZEN,
    PARAMS,
    RECIPE,
    STD,
    H,
    K,
    critic,
    episode,
    evaluate,
    fresh_state,
    toy_policy,
)

from pirl_jax.recipe import CriticConfig, NoiseConfig
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.rollout.episode import Episode
from pirl_jax.training import loop as train

BEHAVIOUR = Behaviour(PARAMS, 0, STD)


def reference_log_prob(item: Episode, w: float, std: float = STD) -> np.ndarray:
    features = 2.0 * item.observations.images.astype(np.float64).mean((1, 2, 3, 4))
    mean = w * features[:-1] + item.observations.proprio[:-1, 0] + 1 / K
    outcome = item.latents[:, 2, :, 0].astype(np.float64)
    density = -0.5 * ((outcome - mean[:, None]) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
    return np.where(np.arange(H) < item.executed[:, None], density, 0)


def test_scoring_recomputes_the_log_prob_of_what_was_executed():
    item = episode(0, 2, terminated=True)
    scored = make_scorer(toy_policy(), FROZEN, RECIPE)(item, BEHAVIOUR)
    expected = reference_log_prob(item, 0.3)
    np.testing.assert_allclose(scored.old_log_prob, expected, rtol=1e-5)
    assert scored.log_prob_gap == pytest.approx(
        np.abs(expected.sum(1)).max(), rel=1e-5
    )  # the actor claimed 0
    assert len(scored.features) == 3


def test_an_episode_is_scored_at_the_level_that_its_actor_had():
    item = episode(0, 2, terminated=True)
    scored = make_scorer(toy_policy(), FROZEN, RECIPE)(item, Behaviour(PARAMS, 0, 0.3))
    np.testing.assert_allclose(scored.old_log_prob, reference_log_prob(item, 0.3, std=0.3), rtol=1e-5)
    np.testing.assert_array_equal(scored.level, np.float32([0.3, 0.3]))


def test_success_is_reported_for_each_task_that_was_played():
    score = make_scorer(toy_policy(), FROZEN, RECIPE)
    played = [("goal_0", True), ("goal_0", False), ("goal_3", True), ("", False)]
    items = [
        dataclasses.replace(episode(i, 1, terminated=won), task=task) for i, (task, won) in enumerate(played)
    ]
    collected = [by_recipe.collected(score(item, BEHAVIOUR)) for item in items]
    metrics = train._episode_metrics(collected, Counter(), {}, update=0)
    rates = {name: value for name, value in metrics.items() if name.startswith("train/success_rate")}
    assert rates == {
        "train/success_rate": 0.5,
        "train/success_rate/goal_0": 0.5,
        "train/success_rate/goal_3": 1.0,
    }


def test_a_batch_holds_every_decision_point_with_its_advantage():
    """Terminated and truncated episodes of different lengths, against the textbook recursion in float64."""
    items = [episode(0, 2, terminated=True), episode(1, 4, terminated=False), episode(2, 1, terminated=False)]
    score = make_scorer(toy_policy(), FROZEN, RECIPE)
    levels = [0.5, 0.4, 0.6]
    behaviours = [Behaviour(PARAMS, 0, level) for level in levels]
    collected = [by_recipe.collected(score(item, behaviours[i])) for i, item in enumerate(items)]
    initial = fresh_state(RECIPE)
    batch, n_valid = by_recipe.make_batch(collected, RECIPE, evaluate(RECIPE), initial)

    assert n_valid == 7
    np.testing.assert_array_equal(batch.level[:7], np.float32(2 * [0.5] + 4 * [0.4] + [0.6]))
    assert batch.advantages.shape == (7,)  # nothing is padded: rows stay in host memory
    advantages, targets = [], []
    for item in items:
        values = 0.7 * 2.0 * item.observations.images.astype(np.float64).mean((1, 2, 3, 4))
        if item.terminated:
            values[-1] = 0
        following = 0.0
        backwards = []
        for t in reversed(range(len(item))):
            following = item.reward[t] + 0.9 * values[t + 1] - values[t] + 0.9 * 0.8 * following
            backwards.append(following)
        advantages += backwards[::-1]
        targets += list(np.array(backwards[::-1]) + values[:-1])
    advantages = (np.array(advantages) - np.mean(advantages)) / np.std(advantages)
    np.testing.assert_allclose(batch.advantages[:7], advantages, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(batch.value_targets[:7], targets, rtol=1e-5)
    np.testing.assert_array_equal(batch.latents[:7], np.concatenate([item.latents for item in items]))
    expected = np.concatenate([reference_log_prob(*pair) for pair in zip(items, 3 * [0.3], levels)])
    np.testing.assert_allclose(batch.old_log_prob[:7], expected, rtol=1e-5)


def test_the_loop_plays_again_what_it_cannot_place_and_publishes_after_each_update():
    published: list[int] = []
    sent: list[Episode] = []

    def receive(timeout: float) -> Episode:
        """Of four, one of a version never published and one of the version before."""
        n = len(sent)
        before = published[0] if len(published) > 1 else published[-1]
        version = (published[-1], 10_000, before, published[-1])[n % 4]
        sent.append(episode(n, 2, terminated=bool(n % 2), version=version))
        return sent[-1]

    updates = by_recipe.run(
        toy_policy(),
        critic,
        FROZEN,
        # One minibatch an update: the ratio is that before the first step.
        make_recipe(RECIPE, minibatch_size=64),
        fresh_state(RECIPE),
        total_steps=2,
        receive=receive,
        publish=lambda version, behaviour: published.append(version),
        stop=threading.Event(),
    )
    rows = [(update.metrics, int(update.state.episodes)) for update in updates]
    assert published == [1, 2, 3]
    assert [row["train/episodes"] for row, _ in rows] == [3, 3]
    assert [row["dropped/unknown_version"] for row, _ in rows] == [1, 2]
    # Numbers that were played again are no numbers more.
    assert [settled for _, settled in rows] == [3, 6]
    assert rows[0][0]["train/ratio_mean"] == pytest.approx(1, abs=1e-4)


def test_a_schedules_level_goes_out_with_each_version_and_comes_back_with_its_episodes(tmp_path):
    """Two of three episodes are of the version before the newest: each counts at its own level."""
    pushed: dict[int, Behaviour] = {}
    sent: list[Episode] = []

    def receive(timeout: float) -> Episode:
        newest = max(pushed)
        version = newest if len(sent) % 3 == 0 else max(newest - 1, min(pushed))
        sent.append(episode(len(sent), 2, terminated=True, version=version))
        return sent[-1]

    recipe = make_recipe(
        RECIPE,
        noise=NoiseConfig(level=0.6, final_level=0.2, decay_updates=2),
        max_staleness=1,
    )
    initial = fresh_state(recipe).replace(updates=jnp.int32(1))  # the level of a resumed run follows
    updates = by_recipe.run(
        toy_policy(),
        critic,
        FROZEN,
        recipe,
        initial,
        total_steps=4,
        receive=receive,
        publish=lambda version, behaviour: pushed.update({version: behaviour}),
        stop=threading.Event(),
    )
    metrics = [update.metrics for update in updates]
    np.testing.assert_allclose([b.level for b in pushed.values()], [0.4, 0.2, 0.2, 0.2], rtol=1e-6)
    levels = [row["train/noise_level"] for row in metrics]
    np.testing.assert_allclose(levels, [0.4, (0.2 + 2 * 0.4) / 3, 0.2], rtol=1e-6)


GROUPED = make_recipe(
    RECIPE, estimator="group", group_size=2, episodes_per_update=4, minibatch_size=64, max_staleness=1
)


def played(seed: int, success: bool, T: int = 2, version: int = 1) -> Episode:
    reward = np.zeros(T, np.float32)
    reward[-1] = success
    item = episode(seed, T, terminated=success, version=version)
    return dataclasses.replace(item, reward=reward, seed=seed)


def test_a_groups_advantage_is_the_return_relative_to_the_group_on_every_chunk():
    items = [played(5, True, T=1), played(5, False, T=3), played(6, False, T=2), played(6, True, T=4)]
    score = make_scorer(toy_policy(), FROZEN, GROUPED)
    collected = [by_recipe.collected(score(item, BEHAVIOUR)) for item in items]
    initial = fresh_state(GROUPED)
    batch, n_valid = by_recipe.make_batch(collected, GROUPED, evaluate(GROUPED), initial)
    assert n_valid == 10
    np.testing.assert_allclose(batch.advantages[:10], [1] + 3 * [-1] + 2 * [-1] + 4 * [1], atol=1e-5)
    assert not np.asarray(batch.value_targets).any()


def test_grpo_learns_from_mixed_groups_only_and_leaves_the_critic_alone(caplog):
    """Of four groups in the order of their numbers: both succeed, one does, none does, one does."""
    outcomes = [(0, True), (0, True), (1, True), (1, False), (2, False), (2, False), (3, False), (3, True)]
    versions: list[int] = []
    remaining = iter(outcomes)

    def receive(timeout: float) -> Episode:
        seed, success = next(remaining)
        # Of different lengths: what the two of a group teach must not cancel.
        return played(seed, success, T=2 + success, version=versions[-1])

    updates = list(
        by_recipe.run(
            toy_policy(),
            critic,
            FROZEN,
            GROUPED,
            fresh_state(GROUPED),
            total_steps=1,
            receive=receive,
            publish=lambda version, behaviour: versions.append(version),
            stop=threading.Event(),
        )
    )
    metrics = updates[-1].metrics
    assert metrics["train/episodes"] == 4
    assert metrics["dropped/uniform_group"] == 4
    # As many as an update takes: someone who waits is told what for.
    assert "4 episodes dropped for this update: the returns of their groups are equal" in caplog.text
    assert metrics["train/success_rate"] == 0.5
    assert metrics["train/grad_norm"] > 0
    assert float(updates[-1].state.critic_params["v"]) == float(CRITIC["v"])
    assert float(updates[-1].state.params["w"]) != float(np.float32(0.3))


def test_nothing_is_compiled_once_the_first_update_is_done():
    """However long the episodes are."""
    versions: list[int] = []
    numbers = itertools.count()

    def receive(timeout: float) -> Episode:
        n = next(numbers)
        return episode(n, 1 + n % 3, terminated=bool(n % 2), version=versions[-1])

    updates = by_recipe.run(
        toy_policy(),
        critic,
        FROZEN,
        make_recipe(RECIPE, critic=CriticConfig(extra_steps=2), decoupled=True),
        fresh_state(RECIPE),
        total_steps=4,
        receive=receive,
        publish=lambda version, behaviour: versions.append(version),
        stop=threading.Event(),
    )
    compiled = [update.metrics["train/compilations"] for update in updates]
    assert compiled[0] > 0
    assert compiled[1:] == [0, 0, 0]


def test_the_loop_learns_from_episodes_whose_versions_change_and_masks_what_is_too_old():
    """Each has a chunk of every version that was ever pushed, as if its actor had played since the start."""
    pushed: list[int] = []
    numbers = itertools.count()

    def receive(timeout: float) -> Episode:
        return episode(next(numbers), len(pushed), terminated=True, version=list(pushed))

    config = make_recipe(RECIPE, max_staleness=1, loss_weighting="episode", lr=1e-3)
    start = fresh_state(config)
    updates = by_recipe.run(
        toy_policy(),
        critic,
        {"scale": jnp.float32(0.01)},  # features of about 1, so that ratios stay near 1
        config,
        start,
        total_steps=4,
        receive=receive,
        publish=lambda version, behaviour: pushed.append(version),
        stop=threading.Event(),
    )
    rows = [update.metrics for update in updates]
    assert [row["dropped/stale_chunks"] for row in rows] == [0, 0, 3, 6]
    assert [row["train/stale_fraction"] for row in rows] == pytest.approx([0, 1 / 2, 2 / 3, 3 / 4])
    assert all(row["dropped/unknown_version"] == 0 for row in rows)
    assert all(row["train/actor_learner_logprob_gap"] < 1e-3 for row in rows)
    # Ratios are taken before the first step moves the policy: chunks of the newest version have 1.
    assert rows[0]["train/ratio_mean"] == pytest.approx(1, abs=1e-4)
    assert all(row["train/policy_steps"] > 0 for row in rows)
    assert not any(row["train/skipped_steps"] for row in rows)
