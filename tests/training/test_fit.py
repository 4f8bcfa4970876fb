"""The choice of a microbatch: as large as the memory allows, and a refusal where nothing fits."""

import re

import jax
import pytest
from by_recipe import make_recipe
from planned import ROWS, plan_of

from pirl_jax.training import compilations
from pirl_jax.training.budget import SLACK, Budget
from pirl_jax.training.fit import candidates, fit
from pirl_jax.training.needs import needs, table

RECIPE = make_recipe(minibatch_size=ROWS, max_staleness=0)


@pytest.fixture(scope="module")
def plan():
    """What one test has compiled is not compiled for the next."""
    return plan_of(RECIPE)


def taken(plan, size):
    return needs(plan.with_microbatch(size), {}).device


def room_for(size):
    return Budget(int(size / (1 - SLACK)) + 1, "a test's card")


def microbatch(found):
    return found.plan.parts.recipe.optimizer.microbatch_size


def test_all_of_a_minibatch_is_in_work_where_there_is_room_for_it(plan):
    found = fit(plan, room_for(needs(plan, {}).device))
    assert microbatch(found) == "auto"


def test_as_much_is_in_work_as_there_is_room_for(plan):
    exactly = taken(plan, 32)
    assert exactly < needs(plan, {}).device
    assert microbatch(fit(plan, room_for(exactly))) == 32
    assert microbatch(fit(plan, room_for(exactly - 1))) == 16


def test_what_cannot_fit_is_refused_with_the_remedy(plan):
    with pytest.raises(ValueError, match=r"does not fit its device.*encoder.*a test's card.*larger card"):
        fit(plan, room_for(taken(plan, 1) - 1))


def test_a_number_is_obeyed_or_refused(plan):
    given = plan.with_microbatch(32)
    assert microbatch(fit(given, room_for(taken(plan, 32)))) == 32
    with pytest.raises(ValueError, match=r"microbatch_size=32 takes .*95% of.*Lower microbatch_size"):
        fit(given, room_for(taken(plan, 32) - 1))


def test_what_lies_beside_takes_room(plan):
    budget = room_for(taken(plan, 32))
    assert microbatch(fit(plan, budget, {"a copy": 10_000})) < 32


@pytest.mark.parametrize(
    ("size", "parts"), [(1, [1]), (8, [8, 4, 2, 1]), (100, [100, 50, 25, 13, 7, 4, 2, 1])]
)
def test_a_minibatch_is_halved_again_and_again(size, parts):
    assert candidates(size) == parts


def test_the_table_adds_up(plan):
    found = needs(plan, {})
    text = "\n".join(table(plan, found, Budget(2**30, "a test's card"), 1e9))
    assert "device memory: 1.00 GiB (a test's card)" in text
    assert f"{found.flops / 1e9:.3g} s" in text
    lying = sum(found.lying.values())
    assert found.device == lying + max(found.arrival, found.update)
    assert re.search(r"at most +\d+\.\d\d MiB", text)


def test_work_that_overlaps_is_added():
    found = needs(plan_of(make_recipe(RECIPE, max_staleness=1)), {})
    assert found.device == sum(found.lying.values()) + found.arrival + found.update


def test_the_run_finds_compiled_what_was_planned(plan):
    """The same programs on arrays of the planned shapes: nothing is compiled a second time."""
    compilations.count()
    plan.encode(8)
    frozen, images, tokens = (
        jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), shapes)
        for shapes in (plan.frozen, plan.images(8), plan._tokens(8))
    )
    before = compilations.count()
    plan.parts.score.encode(frozen, images, tokens)
    assert compilations.count() == before


def test_what_is_planned_for_another_microbatch_compiles_what_hangs_on_it_alone(plan):
    needs(plan, {})
    before = compilations.count()
    smaller = plan.with_microbatch(4)
    for program, size in ((smaller.encode, 8), (smaller.score, 8), (smaller.step, ROWS)):
        program(size)
    assert compilations.count() == before
    smaller.add(4)
    assert compilations.count() == before + 1
