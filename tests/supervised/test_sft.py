"""The supervised step: learns, leaves the frozen alone, and continues bit for bit."""

import threading
from functools import partial

import jax
import numpy as np
import pytest
from toy_frames import CONFIG, data

from pirl_jax.supervised import step as sft
from pirl_jax.supervised.optimizer import SupervisedOptimizer
from pirl_jax.trees import merge, store
from pirl_jax.xvla.init import init_params
from pirl_jax.xvla.trainable import is_frozen


@pytest.fixture(scope="module")
def params():
    return init_params(CONFIG, jax.random.key(0))


@pytest.fixture(scope="module")
def trainer(params):
    """State factory, frozen parameters and step of a run with a frozen text encoder."""
    recipe = SupervisedOptimizer(
        lr=3e-3, warmup_steps=0, decay_lr=3e-3, vlm_lr_scale=1.0, freeze_language_encoder=True
    )
    trainable, frozen = sft.split(params, partial(is_frozen, recipe))
    optimizer = recipe.build(trainable, 1000)
    return lambda seed=0: sft.create(trainable, optimizer, seed), frozen, sft.Step(CONFIG, optimizer)


def run(state, trainer, steps, start=0):
    _, frozen, step = trainer
    losses = []
    final = state
    for _, current, metrics in sft.fit(state, frozen, step, data(start), steps):
        losses.append(float(metrics["train/loss"]))
        final = current
    return final, losses


def assert_same(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        is_key = jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key)
        np.testing.assert_array_equal(*((jax.random.key_data(x) for x in (a, b)) if is_key else (a, b)))


def test_training_lowers_the_loss(trainer):
    _, losses = run(trainer[0](), trainer, 150)
    assert np.mean(losses[-20:]) < 0.4 * np.mean(losses[:5])


def test_three_steps_a_checkpoint_and_three_more_equal_six(trainer, tmp_path):
    whole, _ = run(trainer[0](), trainer, 6)
    half, _ = run(trainer[0](), trainer, 3)
    store.save(tmp_path / "orbax", half)
    resumed = store.restore(tmp_path / "orbax", trainer[0](seed=1))
    resumed, _ = run(resumed, trainer, 6, start=3)
    assert int(resumed.step) == 6
    assert_same(whole, resumed)


def test_a_batch_worked_off_in_parts_takes_the_same_step(trainer):
    """Noise, times and means are the batch's: one gradient, up to the order of its sums."""
    make, frozen, _ = trainer
    recipe = SupervisedOptimizer(lr=3e-3, warmup_steps=0, decay_lr=3e-3, freeze_language_encoder=True)
    optimizer = recipe.build(make().params, 1000)
    batch = next(data())
    taken = []
    for parts in (1, len(batch.action)):
        step = sft.Step(CONFIG, optimizer, parts)
        state, metrics = step(sft.create(make().params, optimizer, 0), frozen, batch)
        # After one step from zero the second moment is the squared gradient, up to a factor.
        taken.append(([leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim], metrics))
    (one, theirs), (many, ours) = taken
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * np.abs(a).max())
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, err_msg=name)


def test_the_step_compiles_once(trainer):
    run(trainer[0](), trainer, 3)
    assert trainer[2].add._cache_size() == trainer[2].apply._cache_size() == 1


def test_the_seed_decides_the_noise(trainer):
    assert run(trainer[0](0), trainer, 2)[1] != run(trainer[0](1), trainer, 2)[1]


def test_frozen_parameters_are_no_state(trainer, params):
    state = trainer[0]()
    assert "language_model" not in state.params["vlm"]
    assert_same(merge(state.params, trainer[1]), params)


@pytest.mark.parametrize("flags", [{}, {"freeze_vision_encoder": True}, {"train_policy_transformer": False}])
def test_split_and_merge_are_inverse(params, flags):
    trainable, frozen = sft.split(params, partial(is_frozen, SupervisedOptimizer(**flags)))
    assert jax.tree.structure(merge(trainable, frozen)) == jax.tree.structure(params)
    assert len(jax.tree.leaves(trainable)) + len(jax.tree.leaves(frozen)) == len(jax.tree.leaves(params))
    assert bool(frozen) == bool(flags)


def test_a_loss_that_is_not_finite_stops_the_run(trainer):
    bad = (batch._replace(action=np.full_like(batch.action, np.nan)) for batch in data())
    with pytest.raises(FloatingPointError, match=r"optimizer_lr"):
        list(sft.fit(trainer[0](), trainer[1], trainer[2], bad, 3))


def test_a_signal_ends_the_run_after_the_step_at_hand(trainer):
    stop = threading.Event()
    done = []
    for step, _, _ in sft.fit(trainer[0](), trainer[1], trainer[2], data(), 10, stop):
        done.append(step)
        if step == 2:
            stop.set()
    assert done == [1, 2]
