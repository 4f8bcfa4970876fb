"""The page of a report and of a comparison in a real browser (make test-browser); writes the pictures."""

import json
import random

import pytest
from libero_episodes import identity, results, settings
from watched_run import write_video

from bridge.evaluate.compare import compare, write_comparison
from bridge.evaluate.page.films import write_grid
from bridge.evaluate.report import make_report, write_report

SIZES = [(1400, False), (1400, True), (390, False), (390, True)]
SUITES = ("libero_goal", "libero_spatial")


def outcomes(rate, seed):
    """Ten tasks a suite, the first never done and the last always."""
    draw = random.Random(seed)
    return {
        suite: [[draw.random() < min(1, max(0, rate + (i - 5) / 5)) for _ in range(20)] for i in range(10)]
        for suite in SUITES
    }


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """An evaluation before and one after training, with films of some episodes, and both compared."""
    folder = tmp_path_factory.mktemp("evaluated")
    for name, rate in (("before", 0.45), ("after", 0.75)):
        of = settings(name, n_episodes=20)
        said = outcomes(rate, 0)
        report = make_report(of, identity(of), results(of, said)) | {"trained_on": "libero_object"}
        report["label"] = f"libero_object-{name}"
        for suite, task_id, episode in [(SUITES[0], i, e) for i in range(3) for e in range(3)]:
            place = folder / name / f"tasks/{suite}_{task_id}/videos/{suite}_{task_id}"
            write_video(place / f"eval_episode_{episode}.mp4", said[suite][task_id][episode])
        if name == "after":
            write_grid(report, folder / name)
        write_report(report, folder / name)
    write_comparison(compare(folder / "before", folder / "after"), folder / "after" / "compared")
    return folder


def look(width, dark):
    return f"{'wide' if width > 900 else 'narrow'}_{'dark' if dark else 'light'}"


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_a_report_shows_tasks_with_intervals_and_films_behind_initial_states(evaluated, page, width, dark):
    page.open((evaluated / "after" / "report.html").as_uri(), width, dark)
    assert page.text("#name") == "libero_object-after"
    assert page.text("#words") == "Evaluated on libero_goal and libero_spatial; trained on libero_object."
    assert "not comparable" in page.text("#notice")
    assert "average of suites" in page.text("#numbers")
    assert page.run("document.querySelectorAll('.suite').length") == 2
    assert page.run("document.querySelectorAll('.interval').length") == 20
    assert page.run("document.querySelectorAll('.cell').length") == 400
    assert page.run("document.querySelectorAll('button.cell').length") == 9
    page.wait(lambda: page.run("document.querySelector('#grid video').readyState >= 2"))
    rates = page.run(
        "[...document.querySelectorAll('.suite')].map((s) => [...s.querySelectorAll('.bar')].map((b) =>"
        " Math.round(20 * b.getBoundingClientRect().width / b.parentElement.getBoundingClientRect().width)))"
    )
    report = json.loads((evaluated / "after" / "report.json").read_text())
    assert rates == [[task["successes"] for task in s["tasks"]] for s in report["suites"].values()]
    assert page.too_wide() == []
    page.picture(f"report_{look(width, dark)}", None if width > 900 else 1650, of="evaluation")
    page.run("document.querySelector('button.cell').click()")
    page.wait(lambda: page.run("document.querySelector('#film video').readyState >= 2"))
    assert "initial state 0, seed 1000: " in page.text("#film")
    assert page.errors() == []


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_a_comparison_begins_with_what_has_changed(evaluated, page, width, dark):
    page.open((evaluated / "after" / "compared" / "compare.html").as_uri(), width, dark)
    comparison = json.loads((evaluated / "after" / "compared" / "compare.json").read_text())
    overall = comparison["overall"]
    assert page.text("#name") == "libero_object-before → libero_object-after"
    assert f"{overall['only_a']} went from success to failure" in page.text("#flips")
    assert f"{overall['only_b']} went from failure to success" in page.text("#flips")
    assert "McNemar's exact p = " in page.text("#flips")
    first = page.run("document.querySelector('main > :not([hidden])').id")
    assert first == "flips"
    marks = page.run("[...document.querySelectorAll('#flips .cell')].map((c) => c.textContent).join('')")
    assert marks == "▼" * overall["only_a"] + "▲" * overall["only_b"]
    assert page.too_wide() == []
    page.picture(f"comparison_{look(width, dark)}", None if width > 900 else 1650, of="evaluation")
    page.run("document.querySelector('.suite button.cell').click()")
    page.wait(
        lambda: page.run(
            "document.querySelectorAll('#film video').length === 2"
            " && [...document.querySelectorAll('#film video')].every((v) => v.readyState >= 2)"
        )
    )
    assert page.errors() == []


def test_one_episode_and_names_that_are_html(page, tmp_path):
    evil = "<img src=x onerror=document.title=0>"
    of = settings(n_episodes=1)
    report = make_report(of, identity(of), results(of, {"libero_10": [[False]]})) | {"label": evil}
    report["suites"]["libero_10"]["tasks"][0]["instruction"] = evil
    write_report(report, tmp_path)
    page.open((tmp_path / "report.html").as_uri())
    assert page.text("#name") == evil
    assert evil in page.text(".suite")
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.querySelectorAll('.cell').length") == 1
    assert page.text("#grid") == ""
    assert page.errors() == []
