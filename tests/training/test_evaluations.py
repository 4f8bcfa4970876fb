"""When a run is evaluated, that training does not notice, and what the numbers are."""

import dataclasses
import logging
import threading
import time

import by_recipe
import numpy as np
import pytest
from scipy.stats import binomtest
from toy_run import FROZEN, RECIPE, critic, episode, fresh_state, toy_policy

from pirl_jax.rollout.assignments import Verdict
from pirl_jax.rollout.evaluation import Evaluation, Outcome, spread
from pirl_jax.training.evaluations import Evaluated, Evaluations, found
from pirl_jax.training.metrics import N_EPISODES, PC_SUCCESS, console_line


def evaluated_at(total, every, start=0, recorded=None):
    """Which of a run's updates are evaluated, if each evaluation is over at once."""
    evaluations = Evaluations(every, spread(1, 1), 0, total, recorded)
    begun = []
    for update in range(start, total + 1):
        if (evaluation := evaluations.begin(update, update + 1)) is not None:
            begun.append(evaluation.update)
            evaluation.outcomes[evaluation.numbers[0]] = None
        assert [ended.update for ended in evaluations.ended(lambda: False)] == begun[-1:] * (update in begun)
    return begun


@pytest.mark.parametrize(
    ("total", "every", "start", "recorded", "expected"),
    [
        (7, 3, 0, None, [0, 3, 6, 7]),  # before the first update, and after the last
        (6, 3, 0, None, [0, 3, 6]),
        (6, 0, 0, None, []),
        (9, 3, 3, 3, [6, 9]),  # killed after the evaluation of its checkpoint
        (9, 3, 3, 0, [3, 6, 9]),  # killed while it was evaluated
        (9, 3, 4, 0, [4, 6, 9]),  # the checkpoint is a later one: what is there now is evaluated
        (9, 3, 5, 3, [6, 9]),
        (9, 3, 4, None, [4, 6, 9]),  # asked for from here on
    ],
)
def test_a_run_is_evaluated_as_often_as_it_says(total, every, start, recorded, expected):
    assert evaluated_at(total, every, start, recorded) == expected


def outcomes(tasks, version=4):
    """Of each task so many successes of so many."""
    return [
        Outcome(task, i < successes, 2.0 * (i < successes), version, version)
        for task, (successes, n) in tasks.items()
        for i in range(n)
    ]


def over(results, version=4):
    evaluation = Evaluation(3, version, 0, spread(len(results), 1))
    evaluation.outcomes = dict(zip(evaluation.numbers, results, strict=True))
    return evaluation


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (3, 10), (50, 50), (17, 20)])
def test_the_rate_has_the_interval_of_the_score_test(successes, n):
    metrics = found(over(outcomes({"": (successes, n)})))
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    assert metrics[PC_SUCCESS] == pytest.approx(100 * successes / n)
    assert metrics["eval/interval_low"] == pytest.approx(100 * interval.low, abs=1e-9)
    assert metrics["eval/interval_high"] == pytest.approx(100 * interval.high, abs=1e-9)
    assert metrics["eval/avg_sum_reward"] == pytest.approx(2 * successes / n)
    assert metrics["eval/version_lag"] == 0
    assert not [name for name in metrics if name.startswith(f"{PC_SUCCESS}/")]


def test_each_task_has_its_rate_and_what_could_not_be_played_is_said(caplog):
    played = outcomes({"goal_0": (1, 2), "goal_3": (3, 4)})
    newer = dataclasses.replace(played[0], newest=6)
    metrics = found(over([None, newer, *played[1:]]))
    rates = {name: value for name, value in metrics.items() if name.startswith(PC_SUCCESS)}
    assert rates == pytest.approx(
        {PC_SUCCESS: 400 / 6, f"{PC_SUCCESS}/goal_0": 50, f"{PC_SUCCESS}/goal_3": 75}
    )
    assert (metrics[N_EPISODES], metrics["eval/given_up"], metrics["eval/version_lag"]) == (6, 1, 2)
    assert "1 of 7 evaluation episodes could not be played" in caplog.text
    nothing = found(over([None, None]))
    assert nothing == {N_EPISODES: 0, "eval/given_up": 2}


def test_the_console_shows_rate_interval_and_count():
    line = console_line(10, found(over(outcomes({"": (3, 10)}))))
    assert line == "update 10 | pc_success 30 | interval_low 10.8 | interval_high 60.3 | n_episodes 10"


def run(evaluations=None, evaluate=None, publish=lambda version, behaviour: None, updates=3, stop=None):
    """Return the turns of a toy run, which learns from the same episodes each time.

    Its one actor plays in the thread that learns, and so nothing after the last update.
    """
    sent = []

    def receive(timeout):
        sent.append(episode(len(sent), 2, terminated=bool(len(sent) % 2), version=1 + len(sent) // 3))
        return sent[-1]

    return by_recipe.run(
        toy_policy(),
        critic,
        FROZEN,
        by_recipe.make_recipe(RECIPE, minibatch_size=64),
        fresh_state(RECIPE),
        total_steps=updates,
        receive=receive,
        publish=publish,
        stop=stop or threading.Event(),
        evaluations=evaluations,
        evaluate=evaluate,
    )


def deliver(assignments, assigned, success=True):
    outcome = Outcome("", success, 0.0, assigned.version, assigned.version)
    assert assignments.deliver(assigned.number, assigned.seed, outcome) is Verdict.WANTED


def test_training_is_the_same_bit_for_bit_whether_it_is_evaluated_or_not():
    def learned(turns):
        return [
            (
                {
                    name: value
                    for name, value in turn.metrics.items()
                    if not name.endswith(("_s", "compilations"))
                },
                np.asarray(turn.state.params["w"]).copy(),
                int(turn.state.episodes),
            )
            for turn in turns
            if not isinstance(turn, Evaluated)
        ]

    plain = learned(run())
    watched = learned(run(Evaluations(2, spread(5, 1), 0, 99), deliver))
    assert len(plain) == 3
    assert plain == watched


def test_evaluations_are_told_in_their_place_among_the_updates():
    turns = list(run(Evaluations(2, spread(3, 1), 0, 99), deliver))
    told = [(turn.update, "evaluated") if isinstance(turn, Evaluated) else turn.number for turn in turns]
    # Once its episodes are over, and before the policy that follows is pushed.
    assert told == [(0, "evaluated"), 1, 2, (2, "evaluated"), 3]
    assert all(turn.metrics[PC_SUCCESS] == 100 for turn in turns if isinstance(turn, Evaluated))
    assert all(turn.metrics["eval/version_lag"] == 0 for turn in turns if isinstance(turn, Evaluated))


def test_no_policy_is_pushed_before_the_one_before_it_is_evaluated(caplog):
    """The learner has all it needs for its update at once; the evaluation takes its time."""
    caplog.set_level(logging.INFO)
    events = []

    def evaluate(assignments, assigned):
        def play():
            time.sleep(0.5)
            events.append("evaluated")
            deliver(assignments, assigned)

        threading.Thread(target=play).start()

    turns = list(
        run(
            Evaluations(10, spread(2, 1), 0, 99),
            evaluate,
            lambda version, behaviour: events.append(version),
            updates=2,
        )
    )
    assert events[:4] == [1, "evaluated", "evaluated", 2]
    first, update = turns[0], turns[1]
    assert first.metrics["eval/wait_s"] > 0.2
    assert first.metrics["eval/eval_s"] > 0.5
    assert update.metrics["train/update_s"] < first.metrics["eval/eval_s"]
    assert "update 0 is evaluated: 2 episodes without noise" in caplog.text


class Signal(threading.Event):
    """Comes while somebody waits."""

    def wait(self, timeout=None):
        self.set()
        return True


def test_a_run_that_is_told_to_stop_waits_for_no_evaluation_and_keeps_its_update():
    """Nobody plays the evaluation: it would never be over."""
    turns = list(run(Evaluations(10, spread(1, 1), 0, 99), lambda *_: None, stop=Signal()))
    assert [turn.number for turn in turns] == [1]
