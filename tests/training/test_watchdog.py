"""Updates that are taken back or given up, and a run that ends because they all were."""

import itertools
import logging
import sys
import threading
import time

import by_recipe
import jax
import numpy as np
import pytest
from by_recipe import make_recipe
from toy_run import FROZEN, RECIPE, critic, episode, fresh_state, toy_policy

from pirl_jax.recipe import WatchdogConfig
from pirl_jax.run_folder.layout import read_step
from pirl_jax.run_folder.retention import Retention
from pirl_jax.training import checkpoint
from pirl_jax.training.checkpoint import CheckpointWriter
from pirl_jax.training.kept import Kept, keeps
from pirl_jax.training.saves import Cadence, Saves
from pirl_jax.training.watchdog import DivergedError, Watchdog
from pirl_jax.update import update

GOOD = {"train/approx_kl": 0.01, "train/skipped_steps": 0.0, "train/policy_steps": 4.0}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"train/approx_kl": 1.5}, "its KL is 1.5, above watchdog.max_kl=1"),
        ({"train/grad_norm": float("nan")}, "train/grad_norm is not finite"),
        ({"train/update_ratio/head": float("inf")}, "train/update_ratio/head is not finite"),
        (
            {"train/skipped_steps": 4.0, "train/policy_steps": 0.0},
            "no step of it had finite losses and gradients",
        ),
    ],
)
def test_what_is_rejected_and_why(change, reason, caplog):
    watchdog = Watchdog(WatchdogConfig(), takes_back=True)
    assert not watchdog.rejects(1, GOOD)
    assert watchdog.rejects(2, GOOD | change)
    assert f"update 2 is rejected, it is taken back: {reason}" in caplog.text


def test_one_skipped_step_of_many_rejects_nothing():
    assert not Watchdog(WatchdogConfig(), True).rejects(1, GOOD | {"train/skipped_steps": 1.0})


def test_only_rejections_in_a_row_end_a_run():
    watchdog, bad = Watchdog(WatchdogConfig(patience=2), True), GOOD | {"train/approx_kl": 9.0}
    for metrics in (bad, GOOD, bad):
        watchdog.rejects(1, metrics)
        watchdog.check()
    watchdog.rejects(1, bad)
    with pytest.raises(
        DivergedError, match=r"2 updates in a row were rejected, the last because its KL is 9"
    ):
        watchdog.check()


def test_without_a_state_to_go_back_to_it_is_only_said(caplog):
    assert not Watchdog(WatchdogConfig(), takes_back=False).rejects(1, GOOD | {"train/approx_kl": 9.0})
    assert "it stays, as nothing is kept (watchdog.keep)" in caplog.text


def toy_run(kept, stop=None, receive=None, **changes):
    """A run of three updates on made-up episodes."""
    versions: list[int] = []
    numbers = itertools.count()

    def play(timeout):
        return episode(next(numbers), 2, terminated=True, version=versions[-1])

    return by_recipe.run(
        toy_policy(),
        critic,
        FROZEN,
        recipe := make_recipe(RECIPE, num_epochs=4, **changes),
        fresh_state(recipe),
        total_steps=3,
        receive=receive or play,
        publish=lambda version, behaviour: versions.append(version),
        stop=stop or threading.Event(),
        kept=kept,
    )


def leaves(state):
    return jax.tree.map(np.array, (state.params, state.critic_params, state.opt_state))


@pytest.mark.parametrize("kept", [Kept, lambda: None])
def test_an_update_that_leads_far_away_is_taken_back_but_counted(kept):
    """Without a kept state the same update stays."""
    wild = toy_run(kept(), lr=50.0, watchdog=WatchdogConfig(max_kl=0.5, patience=5))
    first = leaves(fresh_state(RECIPE))
    rows = [(update.metrics, leaves(update.state), int(update.state.updates)) for update in wild]
    assert [updates for *_, updates in rows] == [1, 2, 3]
    assert all(metrics["train/approx_kl"] > 0.5 for metrics, *_ in rows)
    same = [all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(seen))) for _, seen, _ in rows]
    if kept is Kept:
        assert [metrics["train/rejected"] for metrics, *_ in rows] == [1, 1, 1]
        assert same == [True, True, True]
    else:
        assert [metrics["train/rejected"] for metrics, *_ in rows] == [0, 0, 0]
        assert same == [False, False, False]


def test_a_run_whose_updates_are_all_rejected_ends_with_a_diagnosis():
    wild = toy_run(Kept(), lr=50.0, watchdog=WatchdogConfig(max_kl=0.5, patience=2))
    seen = []
    with pytest.raises(DivergedError, match=r"Lower algorithm.optimizer.lr"):
        seen.extend(update.number for update in wild)
    assert seen == [1, 2]


def test_a_signal_gives_up_the_update_that_runs_and_the_one_before_it_is_there(caplog):
    kept, stop, calls = Kept(), threading.Event(), itertools.count()
    asked = [False]
    # The signal comes in the middle of an update, when the state's memory is in use.
    stop.is_set = lambda: asked[0] and sys._getframe(1).f_code.co_name == "_gives_up" and next(calls) == 3
    updates = toy_run(kept, stop)
    first = next(updates)
    before = leaves(first.state)
    asked[0] = True
    with caplog.at_level(logging.INFO):
        assert list(updates) == []
    assert "the update that ran is given up" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, leaves(kept.state), before)
    assert int(kept.state.updates) == 1


def test_what_is_kept_outlives_its_donation():
    state = {"w": jax.numpy.arange(4.0)}
    kept = Kept()
    kept.keep(state)
    kept.release()
    jax.block_until_ready(jax.jit(lambda s: {"w": s["w"] * 0 - 1}, donate_argnums=0)(state))
    np.testing.assert_array_equal(kept.state["w"], np.arange(4.0))
    copy = kept.on_device()
    jax.block_until_ready(jax.jit(lambda s: {"w": s["w"] * 0 - 1}, donate_argnums=0)(copy))
    np.testing.assert_array_equal(kept.state["w"], np.arange(4.0))


@pytest.mark.parametrize(
    ("keep", "size", "on_cpu", "left", "kept"),
    [
        ("auto", 2**33, False, 0, True),
        ("auto", 2**33, True, 0, False),
        ("auto", 2**33, True, 2**33, True),
        ("auto", 2**20, True, -1, True),
        ("always", 2**33, True, 0, True),
        ("never", 1, False, 0, False),
        ("never", 1, True, 2**33, False),
    ],
)
def test_when_a_state_is_kept(keep, size, on_cpu, left, kept):
    assert keeps(WatchdogConfig(keep=keep), size, on_cpu, left) == kept


class SlowStep:
    """Holds the second update up in its ``step``th minibatch step, as a large policy would for minutes."""

    def __init__(self, monkeypatch, step):
        self.reached, self.goes_on = threading.Event(), threading.Event()
        numbers, wait = itertools.count(), update._wait_for_all_but_one

        def slow(running):
            if next(numbers) == STEPS + step:
                self.reached.set()
                assert self.goes_on.wait(60)
            wait(running)

        monkeypatch.setattr(update, "_wait_for_all_but_one", slow)


STEPS = 8
"""Of an update of ``toy_run``: four epochs of two minibatches."""


@pytest.fixture
def saved_run(tmp_path):
    """Run in a thread, saving the end and what is kept once a signal comes; return stop and thread."""

    def start(kept):
        stop, seen = threading.Event(), []

        def work():
            with CheckpointWriter(tmp_path, 3, Retention()) as writer:
                saves = Saves(writer, Cadence(0), lambda folder, state: None, {}, kept)
                if kept is not None:
                    saves.at_once(stop)
                try:
                    for done in toy_run(kept, stop):
                        seen.append(done.number)
                        states.append(leaves(done.state))
                        saves.after(done.number, done.state)
                finally:
                    saves.last()

        states: list[object] = []
        thread = threading.Thread(target=work)
        thread.start()
        return stop, thread, seen, states

    return start


def test_a_signal_in_the_middle_of_a_slow_step_has_a_checkpoint_before_the_step_is_done(
    saved_run, monkeypatch, tmp_path
):
    slow = SlowStep(monkeypatch, step=3)
    stop, thread, seen, states = saved_run(Kept())
    assert slow.reached.wait(60)
    last = tmp_path / "checkpoints" / "last"
    assert not last.exists()
    stop.set()
    deadline = time.monotonic() + 20
    while not last.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not slow.goes_on.is_set()
    assert read_step(last) == 1
    restored = checkpoint.restore(last, fresh_state(RECIPE))
    jax.tree.map(np.testing.assert_array_equal, leaves(restored), states[0])
    assert int(restored.updates) == 1
    slow.goes_on.set()
    thread.join(60)
    assert seen == [1]  # the update is given up
    assert read_step(last) == 1


@pytest.mark.parametrize(("step", "done"), [(0, [1]), (3, [1, 2])])
def test_without_a_copy_an_update_is_given_up_while_its_state_is_whole_and_else_finished(
    saved_run, monkeypatch, tmp_path, step, done
):
    slow = SlowStep(monkeypatch, step)
    stop, thread, seen, states = saved_run(None)
    assert slow.reached.wait(60)
    stop.set()
    slow.goes_on.set()
    thread.join(60)
    assert seen == done
    restored = checkpoint.restore(tmp_path / "checkpoints" / "last", fresh_state(RECIPE))
    jax.tree.map(np.testing.assert_array_equal, leaves(restored), states[-1])
    assert int(restored.updates) == done[-1]
