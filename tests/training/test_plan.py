"""What a plan says of memory, on the CPU, whose compiler analyses programs as a card's does."""

import jax
import pytest
from planned import ROWS, plan


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
