"""What is said of how far the policy has moved, and parameters that are trained in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_update
from by_recipe import make_recipe

from pirl_jax import optim
from pirl_jax.training.loop import at_rest
from pirl_jax.training.trained import summary
from pirl_jax.update import state


def movement(before, after, group=lambda name: name[0]):
    return optim.movement(optim.sample(before), after, group)


def test_movement_equals_the_plain_formulas():
    rng = np.random.default_rng(0)
    before = {"a": {"x": rng.normal(size=(3, 4)), "y": rng.normal(size=5)}, "b": {"z": np.zeros(6)}}
    after = jax.tree.map(np.copy, before)
    after["a"]["x"][0] += 0.1
    after["b"]["z"][2] = -0.5
    actual = movement(jax.tree.map(jnp.float32, before), jax.tree.map(jnp.float32, after))
    size = np.sqrt(np.sum(before["a"]["x"] ** 2) + np.sum(before["a"]["y"] ** 2))
    expected = {
        "update_ratio/a": np.sqrt(4 * 0.1**2) / size,
        "moved/a": 4 / 17,
        "update_ratio/b": 0.5,
        "moved/b": 1 / 6,
    }
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, err_msg=name)


def test_large_tensors_are_judged_by_a_sample_of_their_numbers():
    """Of two tensors, one 40 times a sample's size, the whole and the sample say the same."""
    rng = np.random.default_rng(1)
    shapes = {"large": (40, optim.SAMPLE + 3), "small": (100,)}
    before = {"a": {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}}
    after = jax.tree.map(lambda x: np.where(rng.random(x.shape) < 0.3, x + np.float32(0.01), x), before)
    assert all(leaf.size <= optim.SAMPLE for leaf in jax.tree.leaves(optim.sample(before)))
    actual = movement(before, after)
    whole = [np.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)]) for tree in (before, after)]
    change = np.linalg.norm(whole[1] - whole[0]) / np.linalg.norm(whole[0])
    np.testing.assert_allclose(actual["update_ratio/a"], change, rtol=0.02)
    np.testing.assert_allclose(actual["moved/a"], np.mean(whole[0] != whole[1]), rtol=0.02)


def test_what_is_in_no_group_is_not_counted():
    before, after = {"a": jnp.zeros(2), "b": jnp.zeros(2)}, {"a": jnp.ones(2), "b": jnp.ones(2)}
    moved = movement(before, after, lambda name: None if name == "b" else name)
    assert set(moved) == {"update_ratio/a", "moved/a"}


@pytest.mark.parametrize("stored", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_masters_are_float32_copies_of_what_was_stored(stored):
    params = {"w": jnp.linspace(-1, 1, 7).astype(stored)}
    masters = optim.masters(params)
    assert masters["w"].dtype == jnp.float32
    np.testing.assert_array_equal(masters["w"], np.asarray(params["w"], np.float32))
    assert masters["w"].unsafe_buffer_pointer() != params["w"].unsafe_buffer_pointer()


def shares(dtype, lr=5e-6):
    """Share of the policy's numbers that an update moves, and the state after it."""
    config = toy_update.recipe(lr=lr, target_kl=None)
    start = toy_update.new_state(config)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), start.params)
    start = start.replace(params=params, opt_state=state.adamw(config.optimizer).init(params))
    batch = toy_update.collect(start.params, config, 20, seed=1)
    after, metrics = toy_update.update_of(config)(start, toy_update.padded(batch), 20)
    return {name: float(value) for name, value in metrics.items() if "/moved/" in name}, after


def test_the_share_that_moves_tells_a_precision_that_rounds_the_update_away():
    in_float32, _ = shares(jnp.float32)
    in_bfloat16, _ = shares(jnp.bfloat16)
    assert in_float32["train/moved/weight"] == 1
    assert in_bfloat16["train/moved/weight"] == 0


def test_frozen_parameters_keep_their_bits_and_have_no_moments():
    config = toy_update.recipe(weight_decay=0.1, lr=0.1, target_kl=None)
    params = toy_update.new_state(config).params
    trained = state.trained_leaves(params, lambda name: None if name == "weight" else name)
    assert trained == {"weight": False, "bias": True, "log_std": True}
    optimizer = state.adamw(config.optimizer, trained)
    opt_state = optimizer.init(params)
    size = sum(leaf.size for leaf in jax.tree.leaves(opt_state))
    assert size == 2 * (params["bias"].size + params["log_std"].size) + 1
    gradients = jax.tree.map(jnp.ones_like, params) | {"weight": jnp.zeros_like(params["weight"])}
    direction, _ = optimizer.update(gradients, opt_state, params)
    moved = optim.descend(params, direction, 0.1)
    np.testing.assert_array_equal(moved["weight"], params["weight"])
    assert np.all(moved["bias"] != params["bias"])


def test_all_trained_is_the_plain_optimizer():
    assert state.trained_leaves({"a": jnp.ones(2)}, lambda name: name) is None


STEPPED = {
    "train/without_signal": 0.0,
    "train/kl_stopped": 0.0,
    "train/skipped_steps": 0.0,
    "train/policy_steps": 3.0,
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "its steps round away"),
        ({"train/kl_stopped": 1.0, "train/policy_steps": 0.0}, "beyond optimizer.target_kl"),
        ({"train/skipped_steps": 3.0, "train/policy_steps": 0.0}, "not finite"),
        ({"train/without_signal": 1.0, "train/policy_steps": 0.0}, "all advantages are 0"),
        ({"train/policy_steps": 0.0}, None),  # the critic warms up
        ({"train/moved/head": 0.001}, None),
        ({"train/moved/noise_head": 1.0}, None),
    ],
)
def test_an_update_in_which_nothing_moves_is_explained(changes, reason):
    said = at_rest(STEPPED | {"train/moved/head": 0.0, "train/moved/noise_head": 0.0} | changes)
    assert (said is None) if reason is None else (reason in said)


def test_the_summary_counts_groups_tensors_and_numbers():
    params = {"a": {"x": jnp.ones((2, 3)), "y": jnp.ones(4)}, "b": {"z": jnp.ones(1000)}}
    said = summary(params, lambda name: "head" if name.startswith("a.") else None)
    assert said == "trained: head: 2 tensors, 10 parameters. Kept as they are: 1 tensor, 1,000 parameters"
    with pytest.raises(ValueError, match="nothing is trained"):
        summary(params, lambda name: None)


def test_a_selection_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"algorithm.trainable must be head or soft_prompts; got 'all'"):
        make_recipe(trainable="all")
