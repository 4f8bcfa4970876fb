"""Scoring works off rows in blocks: how they are cut changes nothing, and a short episode is short work."""

import dataclasses

import numpy as np
import pytest
import toy_run

from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.rollout.blocks import blocks
from pirl_jax.rollout.scoring import Scorer


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
    for got, item in zip(together.together(toy_run.FROZEN, items, {1: behaviour}), items, strict=True):
        wanted = alone(toy_run.FROZEN, item, {1: behaviour})
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
        made(toy_run.FROZEN, toy_run.episode(length, length, terminated=True), {1: behaviour})
    assert made.encode._cache_size() == 1
    assert made.log_prob._cache_size() == 1


PLAYED = {
    version: Behaviour({"w": np.float32(0.3 * version)}, version - 1, 0.5 / version) for version in (1, 2, 3)
}
VERSIONS = ([1, 1, 2, 3], [2, 3], [1], [3, 3, 3])


def counted(made):
    """The scorer's programs with what they were called with: rows of each block, by program."""
    calls = {"encode": [], "log_prob": []}

    def counting(name, program):
        def call(*arguments, **static):
            calls[name].append(len(arguments[-1] if name == "encode" else arguments[3]))
            return program(*arguments, **static)

        return call

    programs = made.encode, made.log_prob
    made.encode, made.log_prob = (counting(*pair) for pair in zip(calls, programs))
    return calls


@pytest.mark.parametrize("sizes", [(1,), (2,), (5, 2), (64, 8)])
def test_every_chunk_is_scored_under_the_policy_that_chose_it(sizes):
    items = [toy_run.episode(i, len(v), terminated=True, version=v) for i, v in enumerate(VERSIONS)]
    mixed, one = scorer(sizes), scorer((16,))
    for got, item in zip(mixed.together(toy_run.FROZEN, items, PLAYED), items, strict=True):
        alone = {v: one(toy_run.FROZEN, item, dict.fromkeys((1, 2, 3), PLAYED[v])) for v in (1, 2, 3)}
        for t, version in enumerate(item.version):
            np.testing.assert_allclose(got.old_log_prob[t], alone[version].old_log_prob[t], rtol=1e-6)
            assert got.level[t] == np.float32(0.5 / version)
        np.testing.assert_array_equal(got.features, alone[1].features)
        assert got.counts.all()
    # Versions are parameters of one program.
    assert max(mixed.encode._cache_size(), mixed.log_prob._cache_size()) <= len(sizes)


def test_a_version_more_costs_at_most_one_block_more_and_one_version_none():
    calls = counted(made := scorer((8,)))
    for versions, scorings in (([1] * 12, 2), ([1] * 8 + [2] * 4, 2), ([1] * 3 + [2] * 9, 3), ([1, 2, 3], 3)):
        calls["encode"].clear(), calls["log_prob"].clear()
        T = len(versions)
        made(toy_run.FROZEN, toy_run.episode(0, T, terminated=True, version=versions), PLAYED)
        assert calls["encode"] == [8] * -(-(T + 1) // 8)
        assert calls["log_prob"] == [8] * scorings
    together = [toy_run.episode(i, 6, terminated=True, version=[1, 1, 1, 2, 2, 2]) for i in range(4)]
    calls["log_prob"].clear()
    made.together(toy_run.FROZEN, together, PLAYED)
    assert len(calls["log_prob"]) == 4  # 12 + 12 chunks: the second block has both


def test_chunks_of_a_version_that_is_not_known_are_encoded_and_masked():
    known = {version: PLAYED[version] for version in (2, 3)}
    item = toy_run.episode(0, 4, terminated=True, version=[1, 1, 2, 3])
    calls = counted(made := scorer((2,)))
    got, whole = (made(toy_run.FROZEN, item, played) for played in (known, PLAYED))
    np.testing.assert_array_equal(got.counts, [False, False, True, True])
    for name in ("step_mask", "old_log_prob", "actor_log_prob"):
        masked = getattr(got, name)
        np.testing.assert_array_equal(masked[2:], getattr(whole, name)[2:])
        assert not masked[:2].any()
        # As if they had grown too old after they were scored.
        np.testing.assert_array_equal(getattr(whole.without(~got.counts), name), masked)
    np.testing.assert_array_equal(got.features, whole.features)
    assert np.isfinite(got.level).all()
    assert len(calls["log_prob"]) == 2 + 3  # two chunks in a block, of two versions; of three versions before
    other = dataclasses.replace(item, log_prob=item.log_prob + np.float32([[9], [9], [0], [0]]))
    assert made(toy_run.FROZEN, other, known).log_prob_gap == got.log_prob_gap


def test_of_an_episode_that_nobody_known_has_played_no_chunk_counts():
    item = toy_run.episode(0, 3, terminated=True, version=7)
    assert not scorer((2,))(toy_run.FROZEN, item, PLAYED).counts.any()
