"""The page of a report and of a comparison: what is put into it, and its films (tests/browser)."""

import json
import re

import numpy as np
import pytest
from libero_episodes import identity, results, settings

from bridge.evaluate.compare import compare, write_comparison
from bridge.evaluate.page.films import GRID, write_grid
from bridge.evaluate.page.page import comparison_page, report_page, where
from bridge.evaluate.report import make_report, write_report
from bridge.evaluate.trained import trained_on
from bridge.videos.film import FAILURE, SUCCESS, read_film, write_film
from bridge.videos.mosaic import MOST, Clip, write_mosaic
from pirl_jax.files import write_json

T, F = True, False


def report_of(outcomes, name="a", **values):
    of = settings(name, **({"n_episodes": len(next(iter(outcomes.values()))[0])} | values))
    return make_report(of, identity(of), results(of, outcomes))


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="exported">(.*?)</script>', page)
    return json.loads(text)


def film(folder, suite, task_id, episode, frames=8, brightness=120):
    path = folder / f"tasks/{suite}_{task_id}/videos/{suite}_{task_id}/eval_episode_{episode}.mp4"
    write_film(path, np.full((frames, 64, 64, 3), brightness, np.uint8), 10)
    return path


def test_cells_are_episodes_with_their_films_where_there_are_some(tmp_path):
    report = report_of({"libero_goal": [[T, F, T], [F, F, F]]})
    film(tmp_path, "libero_goal", 1, 2)
    (tmp_path / "tasks/libero_goal_1/videos/libero_goal_1/pred_episode_0.mp4").write_bytes(b"")
    data = data_of(report_page(report, tmp_path))
    first, second = data["suites"][0]["tasks"]
    assert [cell["success"] for cell in first["cells"]] == [T, F, T]
    assert [cell["init_state"] for cell in first["cells"]] == [0, 1, 2]
    assert [cell["video"] for cell in first["cells"]] == [None] * 3
    shown = "tasks/libero_goal_1/videos/libero_goal_1/eval_episode_2.mp4"
    assert [cell["video"] for cell in second["cells"]] == [None, None, shown]
    assert first["ci95"] == report["suites"]["libero_goal"]["tasks"][0]["ci95"]
    assert data["numbers"][0]["success"] == pytest.approx(2 / 6)


@pytest.mark.parametrize("outcome", [T, F])
def test_one_episode_and_rates_of_0_and_1(outcome, tmp_path):
    data = data_of(report_page(report_of({"libero_10": [[outcome]]}), tmp_path))
    (task,) = data["suites"][0]["tasks"]
    assert task["success"] == float(outcome)
    low, high = task["ci95"]
    assert 0 <= low <= task["success"] <= high <= 1
    assert high - low > 0.5


def test_what_files_say_is_never_html(tmp_path):
    evil = "</script><img src=x onerror=alert(1)><!-- head -->"
    report = report_of({"libero_goal": [[T]]}) | {"label": evil, "failed": {evil: evil}, "trained_on": evil}
    report["suites"]["libero_goal"]["tasks"][0]["instruction"] = evil
    page = report_page(report, tmp_path)
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert data_of(page)["title"] == evil
    assert "default-src 'none'" in page


def test_what_was_evaluated_and_what_was_trained_are_named_apart(tmp_path):
    env = {"type": "libero", "task": "libero_object, libero_10", "task_ids": [0, 3]}
    (tmp_path / "train_config.json").write_text(json.dumps({"algorithm": {"type": "pi_rl"}, "env": env}))
    assert trained_on(tmp_path) == "libero_object and libero_10 (tasks 0, 3)"
    (tmp_path / "train_config.json").write_text(json.dumps({"env": env}))  # supervised
    assert trained_on(tmp_path) is trained_on(tmp_path / "nothing") is None
    assert where(["libero_goal"], "libero_object") == "Evaluated on libero_goal; trained on libero_object."
    assert where(["a", "b", "c"], None) == "Evaluated on a, b, c."


def compared(tmp_path, a, b):
    for name, outcomes in (("a", a), ("b", b)):
        write_json(tmp_path / name / "report.json", report_of(outcomes, name))
    return compare(tmp_path / "a", tmp_path / "b")


def test_a_comparison_has_each_pair_with_both_films(tmp_path):
    film(tmp_path / "a", "libero_goal", 0, 1)
    comparison = compared(tmp_path, {"libero_goal": [[T, F, T]]}, {"libero_goal": [[T, T, F]]})
    out = tmp_path / "b" / "compared"
    write_comparison(comparison, out)
    data = data_of((out / "compare.html").read_text())
    (task,) = data["suites"][0]["tasks"]
    assert [(cell["a"], cell["b"]) for cell in task["cells"]] == [(T, T), (F, T), (T, F)]
    assert task["instruction"]
    shown = task["cells"][1]["video_a"]
    assert shown == "../../a/tasks/libero_goal_0/videos/libero_goal_0/eval_episode_1.mp4"
    assert (out / shown).exists()
    assert task["cells"][1]["video_b"] is None
    assert data["overall"]["p_mcnemar"] == comparison["overall"]["p_mcnemar"]
    assert "/" not in comparison_page(comparison, out)[:15]


def test_pictures_say_what_was_trained(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr("bridge.evaluate.figures.heading", lambda figure, title, notice: titles.append(title))
    write_report(report_of({"libero_goal": [[T]]}) | {"trained_on": "libero_object"}, tmp_path)
    assert titles[0].endswith("\ntrained on libero_object")
    assert "; trained on libero_object." in (tmp_path / "report.md").read_text()


def test_a_grid_shows_tasks_by_episodes_and_stays_at_how_they_ended(tmp_path):
    outcomes = [[T, F, T], [F, T, T]]
    for task_id in range(2):
        for episode in range(2):
            film(
                tmp_path,
                "libero_goal",
                task_id,
                episode,
                frames=5 + 5 * episode,
                brightness=40 + 90 * episode,
            )
    write_grid(report_of({"libero_goal": outcomes}), tmp_path)
    frames, rate = read_film(tmp_path / GRID, 1000)
    assert frames.shape[1:] == (2 * 192, 2 * 192, 3)
    assert rate == 10
    assert len(frames) == 10 + 2 * 10
    first, last = frames[0].astype(int), frames[-1].astype(int)
    for row in range(2):
        for column in range(2):
            middle = 192 * row + 96, 192 * column + 96
            assert abs(first[middle] - (40 + 90 * column)).max() < 12
            edge = last[192 * row + 1, 192 * column + 96]
            assert abs(edge - (SUCCESS if outcomes[row][column] else FAILURE)).max() < 60


def test_long_films_are_shown_faster_and_a_grid_has_an_end(tmp_path):
    clip = tmp_path / "long.mp4"
    write_film(clip, (np.full((32, 32, 3), i % 200, np.uint8) for i in range(601)), 20)
    write_mosaic(tmp_path / "grid.mp4", [Clip(clip, T)], 1)
    frames, rate = read_film(tmp_path / "grid.mp4", 1000)
    assert rate == 7  # every third picture
    assert len(frames) == 201 + 2 * 7
    with pytest.raises(ValueError, match="1 to 40 films; got 41"):
        write_mosaic(tmp_path / "grid.mp4", [Clip(clip, T)] * (MOST + 1), 1)


def test_without_films_there_is_no_grid_and_a_damaged_one_is_named(tmp_path):
    report = report_of({"libero_goal": [[T]]})
    write_grid(report, tmp_path)
    assert not (tmp_path / GRID).exists()
    film(tmp_path, "libero_goal", 0, 0).write_bytes(b"no film")
    with pytest.raises(ValueError, match="cannot be read"):
        write_grid(report, tmp_path)
    assert data_of(report_page(report, tmp_path))["grid"] is None
