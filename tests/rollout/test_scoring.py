"""Scoring works off rows in blocks: how they are cut changes nothing, and a short episode is short work."""

import dataclasses

import numpy as np
import pytest
import toy_run

from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.rollout.scoring import Scorer, blocks


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (5, (8,), [(0, 8)]),
        (16, (8,), [(0, 8), (8, 8)]),
        (130, (64, 8), [(0, 64), (64, 64), (128, 8)]),
        (63, (64, 8), [(i, 8) for i in range(0, 63, 8)]),
    ],
)
def test_blocks_cover_the_rows_in_few_sizes(count, sizes, expected):
    assert list(blocks(count, sizes)) == expected


def scorer(sizes):
    return Scorer(toy_run.toy_policy(), toy_run.RECIPE.noise, sizes)


@pytest.mark.parametrize("sizes", [(1,), (2,), (5, 2), (16, 3), (64, 8)])
def test_episodes_scored_together_in_blocks_are_each_scored_alone(sizes):
    items = [toy_run.episode(seed, length, terminated=True) for seed, length in enumerate((2, 4, 1, 3))]
    behaviour = Behaviour(toy_run.PARAMS, 0, toy_run.STD)
    together, alone = scorer(sizes), scorer((16,))
    for got, item in zip(together.together(toy_run.FROZEN, items, behaviour), items, strict=True):
        wanted = alone(toy_run.FROZEN, item, behaviour)
        for field in dataclasses.fields(got):
            name = field.name
            value, expected = getattr(got, name), getattr(wanted, name)
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6, err_msg=name)
            elif isinstance(value, float):
                assert value == pytest.approx(expected, rel=1e-6), name
            else:
                assert value == expected, name


def test_a_short_episode_costs_a_block_and_each_size_is_compiled_once():
    made = scorer((4,))
    behaviour = Behaviour(toy_run.PARAMS, 0, toy_run.STD)
    for length in (1, 2, 3, 4, 2):
        made(toy_run.FROZEN, toy_run.episode(length, length, terminated=True), behaviour)
    assert made.encode._cache_size() == 1
    assert made.log_prob._cache_size() == 1
