"""Rows of an update in host memory: cut and worked off in blocks, they are what one large array would be."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from pirl_jax.rows import Joined, cut, in_blocks


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, ml_dtypes.bfloat16])
def test_joined_arrays_read_as_one(dtype):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 99, (n, 2, 3)).astype(dtype) for n in (3, 1, 0, 4)]
    whole, joined = np.concatenate(parts), Joined(parts)
    assert len(joined) == 8
    for rows in ([0], [7, 0, 3, 3, 2], list(range(8)), []):
        got = joined[np.array(rows, int)]
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, whole[np.array(rows, int)])


def test_a_row_beyond_the_last_is_none():
    with pytest.raises(IndexError):
        Joined([np.zeros((2, 1))])[np.array([2])]


def test_what_is_cut_is_a_copy_on_the_host():
    tree = {"device": jnp.arange(4), "host": np.arange(4), "joined": Joined([np.arange(3), np.arange(3, 4)])}
    rows = cut(tree, np.array([3, 1]))
    for leaf in rows.values():
        assert isinstance(leaf, np.ndarray)
        assert leaf.tolist() == [3, 1]
    rows["host"][:] = 9
    assert tree["host"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("count", "size"), [(7, 3), (6, 3), (1, 3), (3, 8)])
def test_blocks_have_one_size_and_together_every_row_once(count, size):
    seen = []

    def double(rows):
        seen.append(len(rows["x"]))
        return {"y": 2 * jnp.asarray(rows["x"])}

    tree = {"x": Joined([np.arange(5.0), np.arange(5.0, 10.0)])}
    got = in_blocks(double, tree, count, size)
    np.testing.assert_array_equal(got["y"], 2 * np.arange(float(count)))
    assert set(seen) == {size}
