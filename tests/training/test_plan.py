"""What a plan says of memory, on the CPU, whose compiler analyses programs as a card's does."""

import jax
import pytest
from by_recipe import make_recipe
from tiny import tiny_policy_config

from bridge.weights.export import policy_config
from pirl_jax.training.plan import Observation, Plan
from pirl_jax.update.critic import value_function
from pirl_jax.xvla.init import parameter_shapes
from pirl_jax.xvla.policy import XVLAFlowPolicy

ROWS = 64


def plan(**numbers):
    config = policy_config(tiny_policy_config())
    recipe = make_recipe(minibatch_size=ROWS, **numbers)
    value = value_function(recipe.critic.hidden_dims)
    observation = Observation((1, 3, 64, 64), 10, config.dim_proprio)
    return Plan(XVLAFlowPolicy(config), value, recipe, parameter_shapes(config), observation)


def size(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_a_step_takes_its_state_and_its_rows_and_less_to_work_with_in_microbatches():
    whole, cut = plan(), plan(microbatch_size=8)
    step = whole.step(ROWS)
    assert step.arguments == pytest.approx(size((whole.state, whole.minibatch(ROWS))), rel=0.01)
    assert step.outputs < size(whole.state) / 2  # the state is written in place
    assert cut.step(ROWS).temporaries < step.temporaries / 2


def test_encoder_and_scoring_are_known_too():
    made = plan(reference_kl_coef=0.1)
    assert made.minibatch(4).fixed.reference is not None
    assert made.encode(4).arguments >= size(made.frozen)
    assert made.score(8).working < made.score(64).working
