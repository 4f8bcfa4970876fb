"""The learners that benchmarks compare do the same, and a difference in their maths does not go unseen."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from equal_learners import check_equal, learners, networks, recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair():
    return learners(networks("tiny"), recipe(2, 4, 4, epochs=2))


@pytest.mark.parametrize(
    "change", [{"clip_ratio": 0.02}, {"sigma": 0.11}, {"gamma": 0.5}, {"huber_delta": 0.01}, {"lr": 1e-3}]
)
def test_a_learner_with_another_number_is_found_out(pair, change):
    other = learners(networks("tiny"), pair.recipe)
    orders = other.orders()
    other.torch.numbers = other.torch.numbers._replace(**change)
    if "lr" in change:
        other.torch.optimizer.param_groups[0]["lr"] = change["lr"]
    theirs = other.torch_update(orders)
    with pytest.raises(AssertionError):
        check_equal(other.update(), theirs)


@pytest.mark.parametrize("views", [False, True])
def test_an_update_is_the_same_from_kept_features_and_from_frames(views):
    pair = learners(networks("tiny"), recipe(2, 4, 4, epochs=2))
    orders = pair.orders()
    theirs = pair.torch_update(orders, views)
    check_equal(pair.update(), theirs)
