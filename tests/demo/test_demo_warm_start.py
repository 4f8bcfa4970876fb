"""The start of the demo's training: neither hopeless nor finished."""

from types import SimpleNamespace

import pytest

from bridge.demo.warm_start import checkpoints, choose_middling


def choose(folder, rates):
    """Let a run have checkpoints with these success rates; return the chosen step and the steps evaluated."""
    for step in rates:
        (folder / "checkpoints" / f"{step:06d}" / "pretrained_model").mkdir(parents=True)
    evaluated = []

    def success(path):
        evaluated.append(int(path.parent.name))
        return SimpleNamespace(success=rates[evaluated[-1]])

    return int(choose_middling(checkpoints(folder), success).parent.name), evaluated


def test_the_checkpoint_nearest_to_middling_is_found_by_bisection(tmp_path):
    rates = dict(zip(range(50, 950, 50), [0.0] * 6 + [0.22, 0.42] + [0.6] * 10))
    step, evaluated = choose(tmp_path, rates)
    assert step == 400
    assert len(evaluated) <= 5


def test_where_success_jumps_the_nearer_side_is_taken(tmp_path):
    assert choose(tmp_path, {50: 0.0, 100: 0.32, 150: 0.63, 200: 0.9})[0] == 100


def test_a_warm_start_that_never_gets_there_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="no warm-start checkpoint is within 25% of 47% success"):
        choose(tmp_path, {50: 0.0, 100: 0.1, 150: 0.15})
