"""What was encoded to act on is scored without being encoded again."""

import dataclasses
import itertools
import threading

import by_recipe
import jax
import numpy as np
import pytest
import toy_run
from test_scoring import PLAYED, counted, scorer

from pirl_jax.rollout.encoded import Encoded, digest
from pirl_jax.rollout.scoring import Scorer
from pirl_jax.training import compilations

T = 9
EPISODE = toy_run.episode(0, T, terminated=True, version=[2] * 3 + [3] * 6)


def acted(item, store, which=None):
    """An episode of which a server has encoded these observations."""
    images, tokens = item.observations.images, item.observations.tokens
    features = scorer((4,))(toy_run.FROZEN, item, {}).features
    keys = np.zeros(len(item), np.int64)
    for t in range(len(item)) if which is None else which:
        (keys[t],) = store.put(features[t : t + 1], [digest(images[t], tokens[t])])
    return dataclasses.replace(item, feature_key=keys)


def assert_equal(got, wanted, rtol=0.0):
    for field in dataclasses.fields(got):
        pair = getattr(got, field.name), getattr(wanted, field.name)
        if isinstance(pair[0], np.ndarray):
            np.testing.assert_allclose(*pair, rtol=rtol, err_msg=field.name)
        elif field.name != "encoder_calls":
            assert pair[0] == pair[1], field.name


def test_only_the_final_observation_is_encoded_when_the_others_are_there():
    calls, store = counted(made := scorer((4,))), Encoded(1e6)
    got = made(toy_run.FROZEN, acted(EPISODE, store), PLAYED, store)
    assert (calls["encode"], calls["log_prob"]) == (
        [4],
        4 * [4],
    )  # three blocks of chunks, one of two versions
    assert_equal(got, scorer((4,))(toy_run.FROZEN, EPISODE, PLAYED))
    assert got.encoder_calls == T + 1
    assert store.stats().held_bytes == 0


@pytest.mark.parametrize("sizes", [(1,), (2,), (5, 2), (16, 3), (64, 8)])
@pytest.mark.parametrize("which", [(), (0,), (0, 3, 4, 8), range(8), range(9)])
def test_scores_are_the_same_whatever_is_there(sizes, which):
    store = Encoded(1e6)
    others = [toy_run.episode(i, 3, terminated=False, version=[1, 2, 3]) for i in (1, 2)]
    items = [others[0], EPISODE, others[1]]
    made = scorer(sizes)
    wanted = made.together(toy_run.FROZEN, items, PLAYED)
    items[1] = acted(EPISODE, store, which)
    scored = made.together(toy_run.FROZEN, items, PLAYED, store)
    for got, expected in zip(scored, wanted, strict=True):
        assert_equal(got, expected, rtol=1e-6)  # blocks of another size are another program
    assert [got.encoder_calls for got in scored] == [len(item) + 1 for item in items]
    assert store.stats().held_bytes == 0


def test_with_nothing_there_the_programs_run_as_without_a_store():
    calls = counted(made := scorer((8, 3)))
    runs = []
    for store, item in ((None, EPISODE), (Encoded(1e6), EPISODE), (Encoded(0), acted(EPISODE, Encoded(0)))):
        calls["encode"].clear(), calls["log_prob"].clear()
        made(toy_run.FROZEN, item, PLAYED, store)
        runs.append({name: list(rows) for name, rows in calls.items()})
    assert runs[0] == runs[1] == runs[2] == {"encode": [8, 3], "log_prob": [8, 8, 3]}


def test_a_key_of_another_process_is_not_believed():
    here, there = Encoded(1e6), Encoded(1e6)
    acted(toy_run.episode(5, T, terminated=True), here)
    item, held = acted(EPISODE, there), here.stats().held_bytes
    assert 1 in item.feature_key
    got = scorer((4,))(toy_run.FROZEN, item, PLAYED, here)
    assert_equal(got, scorer((4,))(toy_run.FROZEN, EPISODE, PLAYED))
    assert here.stats().held_bytes == held > 0
    assert got.encoder_calls == 2 * T + 1


def test_what_is_there_of_a_masked_chunk_is_neither_encoded_nor_scored():
    calls, store = counted(made := scorer((4,))), Encoded(1e6)
    got = made(toy_run.FROZEN, acted(EPISODE, store), {3: PLAYED[3]}, store)
    assert (calls["encode"], calls["log_prob"]) == ([4], [4, 4])
    assert_equal(got, scorer((4,))(toy_run.FROZEN, EPISODE, {3: PLAYED[3]}))


def test_features_that_come_from_the_host_compile_nothing_anew():
    frozen = jax.device_put(toy_run.FROZEN)
    made, store = Scorer(toy_run.toy_policy(), toy_run.RECIPE.noise, (4,)), Encoded(1e6)
    made(frozen, EPISODE, PLAYED)
    item, before = acted(EPISODE, store), compilations.count()
    made(frozen, item, PLAYED, store)
    assert store.stats().held_bytes == 0
    assert compilations.count() == before


@pytest.mark.parametrize(("kept", "expected"), [(1e6, 1.0), (0, 5 / 3), (None, None)])
def test_the_loop_says_how_often_an_observation_was_encoded(kept, expected):
    store = None if kept is None else Encoded(kept)
    config = by_recipe.make_recipe(toy_run.RECIPE, episodes_per_update=2)
    numbers, pushed = itertools.count(), []

    def receive(timeout):
        item = toy_run.episode(next(numbers), 2, terminated=True, version=pushed[-1])
        return item if store is None else acted(item, store)

    updates = by_recipe.run(
        toy_run.toy_policy(),
        toy_run.critic,
        toy_run.FROZEN,
        config,
        toy_run.fresh_state(config),
        total_steps=2,
        receive=receive,
        publish=lambda version, behaviour: pushed.append(version),
        stop=threading.Event(),
        encoded=store,
    )
    rows = [update.metrics for update in updates]
    assert len(rows) == 2
    assert [row.get("train/encoder_calls") for row in rows] == [expected] * 2
