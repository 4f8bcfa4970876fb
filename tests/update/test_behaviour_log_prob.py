"""``objective.behaviour_log_prob``: whose density of what was done the importance weights refer to."""

import dataclasses

import by_recipe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_recipe import make_recipe
from test_loss_weighting import scored
from toy_run import RECIPE, evaluate, fresh_state

from pirl_jax.recipe import ObjectiveConfig
from pirl_jax.update import losses


@pytest.mark.parametrize("whose", ["learner", "actor"])
def test_a_points_weight_is_of_the_density_that_the_recipe_names(whose):
    """The policy has not moved, so of the learner's density all weights are one; of the actor's not."""
    rng, cap = np.random.default_rng(0), 1.5
    episodes = []
    for episode in (scored(rng, 3), scored(rng, 4)):
        gap = rng.normal(scale=0.5, size=episode.old_log_prob.shape).astype(np.float32)
        actors = np.where(episode.step_mask, episode.old_log_prob + gap, np.float32(0))
        episodes.append(dataclasses.replace(episode, actor_log_prob=actors))
    recipe = make_recipe(
        RECIPE, episodes_per_update=2, decoupled=True, behaviour_log_prob=whose, max_behaviour_weight=cap
    )
    collected = [by_recipe.collected(episode) for episode in episodes]
    batch, n = by_recipe.make_batch(collected, recipe, evaluate(recipe), fresh_state(recipe))
    assert n == 7
    learners, actors = (
        np.concatenate([getattr(episode, name) for episode in episodes]).astype(np.float64)
        for name in ("old_log_prob", "actor_log_prob")
    )
    weights = np.minimum(np.exp((learners - actors).sum(1)), cap) if whose == "actor" else np.ones(n)
    assert (weights == cap).any() == (whose == "actor")
    with jax.enable_x64(True):
        points = (learners, learners, batch.old_log_prob, batch.advantages)
        arrays = [jnp.asarray(np.asarray(x, np.float64)) for x in points]
        mask = jnp.asarray(batch.step_mask)
        loss, metrics = losses.policy_loss(*arrays, mask, jnp.ones(n), recipe.objective)
    assert float(metrics["behaviour_weight"]) == pytest.approx(weights.mean(), rel=1e-6)
    gains = np.asarray(batch.advantages, np.float64)
    assert float(loss) == pytest.approx(-(weights * gains).mean(), rel=1e-6)


@pytest.mark.parametrize(("whose", "mean"), [("actor", 0.3), ("learner", 0.0)])
def test_the_actors_own_density_makes_up_for_the_difference(whose, mean):
    """The actor draws a from N(0, 1), the learner takes it for N(.3, 1). With A = a, what is maximised at
    unchanged parameters should be the learner's E[a] = .3. By quadrature, so nothing is left to chance."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    learners, actors = -0.5 * (nodes - 0.3) ** 2, -0.5 * nodes**2
    behaviour = actors if whose == "actor" else learners
    objective = ObjectiveConfig(decoupled=True, behaviour_log_prob=whose, max_behaviour_weight=1e9)
    with jax.enable_x64(True):
        columns = [jnp.asarray(x[:, None]) for x in (learners, learners, behaviour)]
        mask = jnp.ones((60, 1), bool)
        loss, _ = losses.policy_loss(
            *columns, jnp.asarray(nodes), mask, jnp.asarray(weights / weights.sum()), objective
        )
    assert float(loss) == pytest.approx(-mean, abs=1e-9)


def test_it_needs_weights_beside_the_ratio():
    with pytest.raises(ValueError, match=r"behaviour_log_prob=actor needs objective.decoupled=true"):
        ObjectiveConfig(behaviour_log_prob="actor")
