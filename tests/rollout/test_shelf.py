"""Encoded observations beyond a bound lie in files, and are the same."""

import errno
import os

import ml_dtypes
import numpy as np
import pytest

from pirl_jax.rollout import shelf as shelves
from pirl_jax.rollout.shelf import Shelf
from pirl_jax.rows import Joined, cut


def block(seed, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(4, 8)).astype(dtype)


def test_what_is_beyond_the_bound_is_mapped_and_room_that_is_free_again_is_used():
    shelf = Shelf(2 * block(0).nbytes)
    kept = [shelf.put({"x": block(seed)})["x"] for seed in range(3)]
    assert [isinstance(array, np.memmap) for array in kept] == [False, False, True]
    del kept[0]
    kept.append(shelf.put({"x": block(3)})["x"])
    assert not isinstance(kept[-1], np.memmap)
    for seed, array in zip((1, 2, 3), kept):
        np.testing.assert_array_equal(array, block(seed))


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int32])
def test_rows_can_be_cut_of_mapped_and_unmapped_blocks_alike(dtype):
    whole, shelf = [block(seed, dtype) for seed in range(3)], Shelf(block(0, dtype).nbytes)
    joined = Joined([shelf.put(array) for array in whole])
    chosen = np.array([11, 0, 5, 5])
    np.testing.assert_array_equal(cut(joined, chosen), np.concatenate(whole)[chosen])


def test_a_file_has_no_name_and_goes_with_its_array(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mapped = Shelf(0).put(block(0))
    assert isinstance(mapped, np.memmap)
    assert not list(tmp_path.iterdir())


def test_many_arrays_share_a_file_and_it_is_gone_when_all_of_them_are(tmp_path, monkeypatch):
    monkeypatch.setattr(shelves, "_SLAB", 4 * block(0).nbytes)
    shelf, descriptors = Shelf(0), len(os.listdir("/proc/self/fd"))
    mapped = [shelf.put(block(seed)) for seed in range(12)]
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 3
    for seed, array in enumerate(mapped):
        np.testing.assert_array_equal(array, block(seed))
    del mapped, array
    shelf.put(block(0))
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


def test_a_full_disk_is_an_error_and_no_crash(monkeypatch):
    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        Shelf(0).put(block(0))


def test_arrays_without_elements_are_left_alone():
    assert Shelf(0).put(np.zeros((3, 0))).shape == (3, 0)
