"""Pictures of a report and of several runs, looked at before they are written."""

import matplotlib.pyplot as plt
import pytest
from libero_episodes import identity, results, settings
from matplotlib.figure import Figure

from bridge.evaluate.figures import draw_report
from bridge.evaluate.report import make_report


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    def draw(outcomes, **values):
        seen = []
        monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: seen.append(self))
        monkeypatch.setattr(plt, "close", lambda _: None)
        of = settings(**values)
        draw_report(make_report(of, identity(of), results(of, outcomes)), tmp_path / "report.png")
        seen[0].canvas.draw()
        return seen[0]

    yield draw
    monkeypatch.undo()
    plt.close("all")


def test_one_tasks_bar_does_not_fill_the_picture(drawn):
    bars = drawn({"libero_object": [[True, False]]}, n_episodes=2).axes[0]
    bottom, top = bars.get_ylim()
    assert abs(bars.patches[0].get_height() / (top - bottom)) < 0.25


@pytest.mark.parametrize("n", [1, 2, 3])
def test_episodes_are_counted_in_whole_numbers_from_0(drawn, n):
    raster = drawn({"libero_object": [[True] * n]}, n_episodes=n).axes[1]
    low, high = raster.get_xlim()
    shown = [tick for tick in raster.get_xticks() if low <= tick <= high]
    assert shown == list(range(n))


def test_the_title_is_the_average_that_papers_print(drawn):
    figure = drawn({"libero_object": [[True] * 2] * 2, "libero_10": [[False] * 2]}, n_episodes=2)
    title = figure.get_suptitle()
    assert title.startswith("a\n50.0%, average of 2 suites, 95 % interval on these tasks ")
