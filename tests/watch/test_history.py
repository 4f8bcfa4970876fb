"""Columns of metrics, and the points of a chart."""

import math

import numpy as np
import pytest

from bridge.watch.history import POINTS, History, listed, number, points


def test_a_column_has_a_place_for_each_row_whenever_it_begins_or_ends():
    history = History()
    history.add([{"step": 1, "a": 0.5}, {"step": 2, "b": 3}, {"step": 3, "a": None, "b": "x"}])
    np.testing.assert_array_equal(history.column("step"), [1, 2, 3])
    np.testing.assert_array_equal(history.column("a"), [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(history.column("b", 1), [3, np.nan])
    np.testing.assert_array_equal(history.column("none"), [np.nan] * 3)
    assert history.last("a", 3) == [0.5]
    assert history.last("a") == []


@pytest.mark.parametrize("value", [None, "1", True, math.inf, math.nan, 10**400, [1], {}])
def test_what_is_no_finite_number_is_none(value):
    assert math.isnan(number(value))


def test_a_file_of_endless_names_takes_no_endless_memory():
    history = History()
    history.add({"step": i, f"m{i}": 1.0, "x" * 5000: 1.0} for i in range(2500))
    assert len(history.names) == 2000


@pytest.mark.parametrize("rows", [1, 2, POINTS, 2 * POINTS, 2 * POINTS + 1, 5000, 100_000])
def test_however_long_a_run_is_few_points_are_drawn(rows):
    history = History()
    history.add({"step": i} for i in range(rows))
    drawn = -(-rows // history.width)
    assert drawn == rows if rows <= 2 * POINTS else POINTS <= drawn <= 2 * POINTS


def test_a_point_has_mean_and_extremes_of_its_rows_and_gaps_are_none_of_them():
    values = np.array([1.0, 3.0, np.nan, 5.0, np.nan, np.nan, 7.0])
    mean, low, high = points(values, 2)
    np.testing.assert_array_equal(mean, [2, 5, np.nan, 7])
    np.testing.assert_array_equal(low, [1, 5, np.nan, 7])
    np.testing.assert_array_equal(high, [3, 5, np.nan, 7])
    assert listed(mean) == [2, 5, None, 7]
    assert listed(np.array([1 / 3, 123456.789])) == [0.33333, 123460.0]
