"""The store of observations that were encoded to act on."""

import threading
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pirl_jax.rollout.encoded import Encoded, Stats, digest

ROW = 4 * 2 + 2 * 3
"""Bytes of a row of ``features``."""


def features(*values):
    return {
        "image": np.array([[value, -value] for value in values], np.float32),
        "text": np.array([[value] * 3 for value in values], np.float16),
    }


def test_a_row_is_taken_once_and_only_by_who_has_its_observation():
    store = Encoded(1e6)
    first, second = store.put(features(1, 2), [b"a", b"b"])
    assert store.take(first, b"b") is None
    assert store.take(0, b"a") is None
    taken = store.take(first, b"a")
    np.testing.assert_array_equal(taken["image"], [[1, -1]])
    assert taken["text"].dtype == np.float16
    assert store.take(first, b"a") is None
    np.testing.assert_array_equal(store.take(second, b"b")["text"], [[2, 2, 2]])
    assert store.stats() == Stats(evicted=0, held_bytes=0)


def test_rows_that_fill_a_block_are_not_kept_and_what_is_kept_is_a_copy():
    store = Encoded(1e6)
    block = features(1, 7, 7, 7)
    (key,) = store.put(block, [b"a"])
    block["image"][:] = 0
    assert store.stats().held_bytes == ROW
    taken = store.take(key, b"a")
    np.testing.assert_array_equal(taken["image"], [[1, -1]])
    assert all(leaf.base is None for leaf in taken.values())


def test_a_row_that_is_larger_than_the_bound_is_gone_at_once():
    store = Encoded(ROW - 1)
    (key,) = store.put(features(1), [b"a"])
    assert key
    assert store.take(key, b"a") is None
    assert store.stats() == Stats(evicted=1, held_bytes=0)


@settings(max_examples=60, deadline=None)
@given(
    bound=st.integers(0, 5), steps=st.lists(st.one_of(st.integers(1, 3), st.integers(-12, -1)), max_size=40)
)
def test_it_holds_the_newest_rows_that_fit(bound, steps):
    """Against a list: positive steps put so many rows, negative ones take the row put so long ago."""
    store, expected, keys, taken = Encoded(bound * ROW), OrderedDict(), [], 0
    for step in steps:
        if step > 0:
            names = [str(len(keys) + i).encode() for i in range(step)]
            got = store.put(features(*range(len(keys), len(keys) + step)), names)
            for key, name in zip(got, names, strict=True):
                keys.append((key, name))
                expected[key] = name
                while len(expected) > bound:
                    expected.popitem(last=False)
        elif -step <= len(keys):
            key, name = keys[step]
            found = store.take(key, name) is not None
            assert found == (expected.pop(key, None) is not None)
            taken += found
        assert store.stats().held_bytes == len(expected) * ROW
    assert len({key for key, _ in keys}) == len(keys)
    assert len(keys) == taken + store.stats().evicted + len(expected)


def test_keys_fit_the_action_row_and_never_are_0():
    store = Encoded(1e6)
    (old,) = store.put(features(1), [b"old"])
    store._next = (1 << 32) - 1
    last, first = store.put(features(2, 3), [b"last", b"first"])
    assert (last, first) == ((1 << 32) - 1, old)
    assert store.take(old, b"old") is None
    assert store.take(first, b"first") is not None
    assert store.stats() == Stats(evicted=1, held_bytes=ROW)


def test_it_may_be_used_from_several_threads():
    store, taken, many = Encoded(1e9), [], 200

    def use(name):
        for i in range(many):
            (key,) = store.put(features(i), [b"%d %d" % (name, i)])
            found = store.take(key, b"%d %d" % (name, i))
            taken.append(found is not None and found["image"][0, 0] == i)

    threads = [threading.Thread(target=use, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [True] * 4 * many
    assert store.stats() == Stats(evicted=0, held_bytes=0)


def test_a_digest_is_of_contents_and_shapes_whatever_the_integers_and_the_memory():
    rng = np.random.default_rng(0)
    images, tokens = rng.integers(0, 256, (2, 3, 4, 5), dtype=np.uint8), np.arange(6)
    wanted = digest(images, tokens)
    assert len(wanted) == 16
    assert digest(images, tokens.astype(np.int32)) == wanted
    strided = np.ascontiguousarray(images.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    assert digest(strided, tokens) == wanted
    changed = images.copy()
    changed[1, 2, 3, 4] ^= 1
    others = [
        digest(changed, tokens),
        digest(images, tokens + (np.arange(6) == 5)),
        digest(images.reshape(3, 2, 4, 5), tokens),
        digest(images[:1], tokens),
        digest(images, tokens[:5]),
    ]
    assert len({wanted, *others}) == 6


def test_a_digest_is_of_images_as_they_are_sent():
    with pytest.raises(Exception, match="images"):
        digest(np.zeros((2, 3, 4, 5), np.float32), np.arange(3))
