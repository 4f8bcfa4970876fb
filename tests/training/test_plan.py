"""What a plan says of memory, on the CPU, whose compiler analyses programs as a card's does."""

import jax
import pytest
from by_recipe import make_recipe
from planned import ROWS, plan, plan_of
from tiny import tiny_policy_config

from pirl_jax.recipe import DemonstrationsConfig


def size(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_a_part_takes_its_parameters_and_its_rows_and_less_to_work_with_the_smaller_it_is():
    made = plan()
    whole = made.add(ROWS)
    held = 2 * size(made.state.params) + size(made.part(ROWS))  # parameters and their gradient
    assert whole.arguments == pytest.approx(held, rel=0.03)  # the critic's columns are not asked for
    assert whole.outputs < size(made.state.params) / 2  # sums are written in place
    assert made.add(8).temporaries < whole.temporaries / 2


def test_a_step_takes_its_state_in_place():
    made = plan()
    step = made.step(ROWS)
    assert step.arguments == pytest.approx(size(made.state) + size(made.state.params), rel=0.05)
    assert step.outputs < size(made.state) / 2


def test_a_step_works_in_the_place_of_parameters_and_moments():
    """The optimiser's, of which a selection between before and after would hold all three twice."""
    recipe = make_recipe(minibatch_size=ROWS, estimator="group", group_size=2)
    made = plan_of(recipe, tiny_policy_config(hidden_size=256, depth=2, num_heads=2))
    assert size(made.state.params) > 4 * 2**20
    assert made.step(ROWS).temporaries < size(made.state.params) / 4


def test_encoder_and_scoring_are_known_too():
    made = plan(reference_kl_coef=0.1)
    assert made.part(4).fixed.reference is not None
    assert made.encode(4).arguments >= size(made.frozen)
    assert made.score(8).working < made.score(64).working


def test_demonstrations_are_planned_with_the_step():
    with_them = plan(demonstrations=DemonstrationsConfig(coef=0.1, batch_size=4, max_samples=16))
    extra = with_them.step(ROWS).arguments - plan().step(ROWS).arguments
    assert extra == pytest.approx(size(with_them._demonstrations()), rel=0.05)
