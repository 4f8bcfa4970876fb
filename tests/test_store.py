"""A pytree on disk comes back bit for bit, or is refused in words."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from pirl_jax.trees import store


class Inner(NamedTuple):
    count: jax.Array
    empty: jax.Array


def example_state(seed: int = 0) -> dict:
    params = {
        "head": {"w": jax.random.normal(jax.random.key(seed), (5, 3)), "b": jnp.full((3,), -0.0)},
        "half": jax.random.normal(jax.random.key(seed + 1), (4,)).astype(jnp.bfloat16),
    }
    return {
        "params": params,
        "opt_state": optax.adamw(1e-3).init(params),
        "key": jax.random.PRNGKey(seed + 7),
        "inner": (Inner(jnp.int32(3), jnp.zeros((0, 2))), [np.array([np.nan, 2**-149], np.float32)]),
        "version": 2**40 + seed,
        "beta": 0.1,
    }


def bits(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_restore_returns_the_same_bits_types_and_structure(tmp_path):
    state = example_state()
    store.save(tmp_path / "x", state)
    restored = store.restore(tmp_path / "x", example_state(seed=1))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert bits(restored) == bits(state)
    for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(state)):
        assert type(got) is type(want)
        assert getattr(got, "dtype", None) == getattr(want, "dtype", None)


def test_restore_takes_abstract_leaves(tmp_path):
    params = example_state()["params"]
    store.save(tmp_path / "x", params)
    restored = store.restore(tmp_path / "x", jax.eval_shape(lambda: params))
    assert bits(restored) == bits(params)


def test_restored_arrays_can_be_donated(tmp_path):
    state = {"w": jnp.arange(1000.0)}
    store.save(tmp_path / "x", state)
    restored = store.restore(tmp_path / "x", state)
    stepped = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(restored)
    np.testing.assert_array_equal(stepped["w"], np.arange(1000.0) + 1)
    assert bits(store.restore(tmp_path / "x", state)) == bits(state)


def test_an_update_works_in_the_place_of_a_restored_state(tmp_path):
    state = {f"w{i}": jnp.arange(100_000.0 + 1000 * i) for i in range(8)}
    store.save(tmp_path / "x", state)
    step = jax.jit(lambda w: w + 1, donate_argnums=0)
    for like in (state, jax.eval_shape(lambda: state)):
        for array in store.restore(tmp_path / "x", like).values():
            place = array.unsafe_buffer_pointer()
            assert step(array).block_until_ready().unsafe_buffer_pointer() == place


def test_load_needs_no_structure_and_keeps_bfloat16(tmp_path):
    store.save(tmp_path / "x", {"a": {"b": np.ones(3, ml_dtypes.bfloat16)}})
    loaded = store.load(tmp_path / "x")
    assert loaded["a"]["b"].dtype == ml_dtypes.bfloat16
    assert isinstance(loaded["a"]["b"], np.ndarray)


def test_a_mismatch_names_path_and_shapes(tmp_path):
    store.save(tmp_path / "x", {"a": {"w": np.zeros((3, 4), np.float32)}, "old": np.zeros(2, np.int32)})
    like = {"a": {"w": np.zeros((3, 5), np.float32)}, "new": np.zeros(1, np.float32)}
    with pytest.raises(ValueError) as error:
        store.restore(tmp_path / "x", like)
    message = str(error.value)
    assert "a.w is float32[3, 4], expected float32[3, 5]" in message
    assert "new is missing (expected float32[1])" in message
    assert "old is not expected (int32[2])" in message
    assert "train_config.json" in message
    like = {"a": {"w": jnp.zeros((3, 4), jnp.bfloat16)}, "old": np.zeros(2, np.int32)}
    with pytest.raises(ValueError, match=r"a\.w is float32\[3, 4\], expected bfloat16\[3, 4\]"):
        store.restore(tmp_path / "x", like)


def test_save_refuses_an_existing_folder_and_restore_a_foreign_one(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match="already exists"):
        store.save(tmp_path / "x", {"a": np.ones(2)})
    with pytest.raises(ValueError, match="not a complete Orbax checkpoint"):
        store.restore(tmp_path / "x", {"a": np.ones(2)})
    with pytest.raises(ValueError, match="not a complete Orbax checkpoint"):
        store.load(tmp_path / "absent")


def test_a_branch_can_be_read_alone(tmp_path):
    store.save(tmp_path / "x", {"params": {"w": np.ones(3)}, "moments": ({"w": np.zeros(3)},)})
    loaded = store.load(tmp_path / "x", only=("params",))
    assert list(loaded) == ["params"]
    np.testing.assert_array_equal(loaded["params"]["w"], 1.0)
