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


def test_a_warm_starts_curve_is_drawn_with_gaps_in_the_metrics(tmp_path):
    rows = [
        {"step": i, "train/loss": 1 / i, "train/grip_loss": None if i == 2 else 0.1, "train/lr": 1e-3}
        for i in range(1, 4)
    ]
    warm_start_curve(rows, tmp_path / "learning_curve.png", "outputs/warm")
    assert imageio.imread(tmp_path / "learning_curve.png").std() > 5
