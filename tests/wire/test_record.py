"""Promises of the packed action row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bridge.wire.record import HEADER_SIZE, MAX_ROW_SIZE, Record, RecordDims, RecordError, pack, unpack

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


INTEGERS = {"denoise_step": 16, "version": 31, "number": 31, "run": 32, "feature_key": 32}
"""Bits of each."""


@st.composite
def records(draw):
    H, E, L, A = (draw(st.integers(1, n)) for n in (6, 4, 4, 5))
    Hx = draw(st.integers(1, H))
    arrays = [draw(hnp.arrays(np.float32, shape, elements=finite)) for shape in ((Hx, E), (L, H, A), (H,))]
    integers = {name: draw(st.integers(0, 2**bits - 1)) for name, bits in INTEGERS.items()}
    return Record(*arrays, **integers)


def example(**changes):
    fields = {
        "env_action": np.zeros((2, 4), np.float32),
        "latents": np.ones((3, 5, 4), np.float32),
        "log_prob": np.zeros(5, np.float32),
        "denoise_step": 1,
        "version": 70_000,
    }
    return Record(**(fields | changes))


@given(records())
def test_a_record_comes_back_bit_for_bit(record):
    row = pack(record)
    assert row.dtype == np.float32
    assert row.shape == (record.dims.row_size,)
    back = unpack(row[None], dims=record.dims)
    for name in ("env_action", "latents", "log_prob"):
        sent, got = getattr(record, name), getattr(back, name)
        assert sent.shape == got.shape
        assert sent.tobytes() == got.tobytes()
    assert all(getattr(back, name) == getattr(record, name) for name in INTEGERS)


@given(records(), st.data())
def test_any_changed_bit_is_noticed(record, data):
    row = pack(record)
    bits = row.view(np.uint32)
    position = data.draw(st.integers(0, len(bits) - 1))
    bits[position] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    # The sign of a zero in the header is the one bit without a meaning.
    if position < HEADER_SIZE and row[position] == 0:
        return
    with pytest.raises(RecordError):
        unpack(row)


@given(hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)))
def test_arbitrary_numbers_give_an_error_and_nothing_else(row):
    with pytest.raises(RecordError):
        unpack(row)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda row: row[:5], "at least"),
        (lambda row: row[:-1], "Truncated"),
        (lambda row: row.astype(np.float64), "float32"),
        (lambda row: np.concatenate([[0], row[1:]]).astype(np.float32), "magic"),
        (lambda row: _with(row, 1, 9), "format"),
        (lambda row: _with(row, 2, 0), "out of bounds"),
        (lambda row: _with(row, 2, 60_000), "Truncated"),
        (lambda row: _with(row, 4, np.nan), "natural numbers"),
        (lambda row: _with(row, HEADER_SIZE + 1, 0.5), "checksum"),
    ],
)
def test_the_error_says_what_is_wrong(spoil, message):
    with pytest.raises(RecordError, match=message):
        unpack(spoil(pack(example())))


def test_sizes_are_checked_before_memory_is_taken():
    row = pack(example())
    row[2:7] = 60_000
    with pytest.raises(RecordError, match=str(MAX_ROW_SIZE)):
        unpack(row)


def test_other_sizes_than_expected_are_refused():
    with pytest.raises(RecordError, match="share one config"):
        unpack(pack(example()), dims=RecordDims(2, 4, 3, 5, 7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": np.full((3, 5, 4), np.nan, np.float32)}, "NaN"),
        ({"version": 1 << 31}, "version"),
        ({"version": -1}, "version"),
        ({"feature_key": 1 << 32}, "feature_key"),
        ({"feature_key": -1}, "feature_key"),
        ({"log_prob": np.zeros(4, np.float32)}, "log_prob"),
        ({"env_action": np.zeros((6, 4), np.float32)}, "does not fit"),
        ({"env_action": np.zeros(4, np.float32)}, "dimensions"),
    ],
)
def test_what_cannot_be_packed_is_refused(changes, message):
    with pytest.raises(RecordError, match=message):
        pack(example(**changes))


def _with(row, position, value):
    row = row.copy()
    row[position] = value
    return row
