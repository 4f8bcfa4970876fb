"""The picture of a run."""

import imageio.v3 as imageio
import pytest

from bridge.figures.learning_curve import learning_curve
from bridge.figures.warm_start import warm_start_curve


def test_the_learning_curve_is_drawn_with_gaps_in_the_metrics(tmp_path):
    rows = [
        {"step": i, "train/success_rate": 0.3, "train/approx_kl": None if i == 2 else 0.1}
        for i in range(1, 4)
    ]
    result = {"success": 0.4, "n": 200, "ci95": [0.33, 0.47]}
    learning_curve(rows, tmp_path / "learning_curve.png", "π-RL", result, result)
    assert imageio.imread(tmp_path / "learning_curve.png").shape[2] in (3, 4)
    with pytest.raises(ValueError, match="no update"):
        learning_curve([], tmp_path / "empty.png", "π-RL")


def test_a_runs_own_evaluations_are_a_second_curve_with_its_interval(tmp_path):
    def drawn(name, rows):
        learning_curve(rows, tmp_path / name, "π-RL")
        return imageio.imread(tmp_path / name)

    updates = [{"step": i, "train/success_rate": 0.3, "train/approx_kl": 0.1} for i in range(1, 5)]
    evaluations = [
        {
            "step": i,
            "eval/n_episodes": 50,
            "eval/pc_success": 60.0,
            "eval/interval_low": low,
            "eval/interval_high": 75,
        }
        for i, low in ((0, 45.0), (2, 45.0), (4, 45.0))
    ]
    failed = {"step": 2, "eval/n_episodes": 0, "eval/given_up": 50}
    plain = drawn("plain.png", updates)
    both = drawn("both.png", [*updates, *evaluations, failed])
    wider = drawn("wider.png", [*updates, *[row | {"eval/interval_low": 5.0} for row in evaluations]])
    # Green, the evaluations' own colour: a line in one picture, a band of the interval's height around it.
    green = [
        ((image[..., 1] > image[..., 0] + 10) & (image[..., 1] > image[..., 2] + 5)).sum()
        for image in (plain, both, wider)
    ]
    assert green[0] == 0
    assert green[2] > 1.5 * green[1] > 1000


def test_a_warm_starts_curve_is_drawn_with_gaps_in_the_metrics(tmp_path):
    rows = [
        {"step": i, "train/loss": 1 / i, "train/grip_loss": None if i == 2 else 0.1, "train/lr": 1e-3}
        for i in range(1, 4)
    ]
    warm_start_curve(rows, tmp_path / "learning_curve.png", "outputs/warm")
    assert imageio.imread(tmp_path / "learning_curve.png").std() > 5
