"""The run page in a real browser: make test-browser, which writes the pictures of the docs."""

import json
from pathlib import Path

import pytest
from conftest import watched
from PIL import Image
from watched_run import (
    say,
    status,
    update_row,
    write_checkpoint,
    write_config,
    write_long,
    write_rows,
    write_video,
)

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ("approx_kl", "clip_fraction", "explained_variance", "entropy", "actor_learner_logprob_gap", "lr")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that goes on, with everything that a page can show."""
    folder = tmp_path_factory.mktemp("run") / "outputs" / "libero_object"
    folder.mkdir(parents=True)
    write_rows(folder, 141)
    write_config(folder, lr=8e-6)
    for step in (120, 130, 140):
        write_checkpoint(folder, step, 0.6 + step / 1000, 70.0 + step / 20)
    (folder / "checkpoints/best").symlink_to("000140")
    for name in ("failure_000139", "success_000141"):
        write_video(folder / "videos" / f"{name}.mp4", name.startswith("success"))
    (folder / "report.md").write_text("# a report\n")
    say(folder, status(141, actors=8))
    return folder


def drawn(page, name):
    """How many pixels of a chart are neither the card's ground nor transparent."""
    return page.run(
        f"""(() => {{
          const canvas = document.querySelector('#{name} canvas');
          if (!canvas || !canvas.width) return 0;
          const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          let count = 0;
          for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
          return count;
        }})()"""
    )


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (1400, True), (390, False), (390, True)])
def test_everything_is_shown_and_fits(run, page, width, dark):
    say(run, status(141, actors=8))
    with watched(run) as address:
        page.open(address, width, dark)
        page.wait_for_rows(141)
        page.wait(lambda: page.run("document.querySelectorAll('video').length") == 2)
        page.wait(lambda: page.run("[...document.querySelectorAll('video')].every((v) => v.readyState >= 4)"))
        assert page.text("#state") == "running"
        assert page.text("#path") == "outputs/libero_object"
        assert (
            page.text("#words") == "Update 142 waits: 37 of 64 episodes are there, 8 actors, 8 being played."
        )
        assert "of 200" in page.text("#numbers")
        assert all(drawn(page, f"chart-{name}") > 1500 for name in CHARTS)
        assert drawn(page, "success-plot") > 8000
        for place, words in {
            "#time": "waiting for episodes",
            "#actors": "versions behind",
            "#tasks": "libero_object_9",
            "#checkpoints": "best",
            "#videos": "failed",
            "#reports": "report.md",
            "#config": "xvla_default.json",
            "#doctor": "size of the updates",
        }.items():
            assert words in page.text(place), place
        assert page.too_wide() == []
        assert page.errors() == []
        shade = page.run("getComputedStyle(document.body).backgroundColor")
        assert shade == ("rgb(19, 20, 22)" if dark else "rgb(246, 246, 244)")
        name, height = ("wide", None) if width > 900 else ("narrow", 1650)
        picture = page.picture(f"{name}_{'dark' if dark else 'light'}", height)
        assert Image.open(picture).width == width


def test_before_the_first_update_the_page_says_what_it_waits_for(tmp_path, page):
    folder = tmp_path / "outputs" / "libero_object"
    folder.mkdir(parents=True)
    say(folder, status(0, arrived=37))
    with watched(folder) as address:
        page.open(address)
        page.wait(lambda: page.text("#state") == "running")
        words = "No update yet: 37 of 64 episodes are there, 6 actors, 6 being played."
        assert page.text("#words") == page.text("#success-empty") == words
        assert "None is saved yet" in page.text("#checkpoints")
        assert "No configuration yet" in page.text("#config")
        assert page.text("#videos") == page.text("#tasks") == ""
        assert page.errors() == []
        page.picture("before_the_first_update")


def test_what_is_written_appears_and_a_broken_row_is_said(tmp_path, page):
    import random

    write_rows(tmp_path, 3)
    with watched(tmp_path) as address, (tmp_path / "metrics.jsonl").open("a") as file:
        page.open(address)
        page.wait_for_rows(3)
        for step in range(4, 9):
            row = json.dumps({"step": step, "time": 2e9, **update_row(step, random.Random(step))}) + "\n"
            file.write(row[:100])
            file.flush()
            page.wait_for_rows(step - 1)  # it reads on, up to half a row
            file.write(row[100:] + ('{"step": broken\n' if step == 5 else ""))
            file.flush()
        page.wait_for_rows(8)
        assert page.run("points.x.step.join()") == "1,2,3,4,5,6,7,8"
        page.wait(lambda: "1 line of metrics.jsonl is broken and left out." in page.text("#foot"))
        say(tmp_path, status(8))
        page.wait(lambda: "Update 9 waits" in page.text("#words"))
        assert page.errors() == []


def test_a_resumed_run_takes_back_what_came_after_its_checkpoint(tmp_path, page):
    write_rows(tmp_path, 10)
    with watched(tmp_path) as address:
        page.open(address)
        page.wait_for_rows(10)
        write_rows(tmp_path, 6, begin=5)  # the rows up to 4 stay
        page.wait_for_rows(6)
        assert page.run("points.x.step.join()") == "1,2,3,4,5,6"
        assert page.errors() == []


def test_a_hundred_thousand_updates_are_shown_and_followed(tmp_path, page):
    folder = tmp_path / "outputs" / "libero_object"
    folder.mkdir(parents=True)
    write_long(folder, 100_000)
    with watched(folder) as address:
        page.open(address)
        page.wait_for_rows(100_000, 300)
        assert 400 <= page.run("points.x.step.length") <= 800
        assert drawn(page, "chart-approx_kl") > 5000
        assert "A point stands for 128 updates" in page.text("#foot")
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"step": 100001, "time": 2e9, "train/success_rate": 1.0, "train/episodes": 64}\n')
        page.wait_for_rows(100_001)
        size = page.run(
            "performance.getEntriesByName(performance.getEntriesByType('resource')"
            ".findLast((e) => e.name.includes('/news')).name)[0].encodedBodySize"
        )
        assert size < 30_000
        assert page.errors() == []
        page.picture("long", 900)


def test_a_chart_explains_itself(run, page):
    say(run, status(141, actors=8))
    with watched(run) as address:
        page.open(address)
        page.wait_for_rows(141)
        page.run("document.querySelector('#chart-clip_fraction .ask').click()")
        page.wait(lambda: "ratios that the clip holds back" in page.text("#help"))
        assert "0.02 to 0.3" in page.text("#help")
        page.picture("help", 900)


def test_an_export_is_the_same_page_without_a_server(run, tmp_path, page):
    import subprocess
    import sys

    file = tmp_path / "run.html"
    subprocess.run([sys.executable, "-m", "bridge.watch", str(run), f"--export={file}"], check=True)
    page.open(file.as_uri())
    page.wait_for_rows(141)
    assert all(drawn(page, f"chart-{name}") > 1500 for name in CHARTS)
    assert "As of " in page.text("#foot")
    assert page.run("performance.getEntriesByType('resource').length") == 0
    assert page.errors() == []


def test_names_in_a_runs_files_are_text_and_nothing_else(tmp_path, page):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    evil = "<img src=x onerror=document.title=0>"
    row = {
        "step": 1,
        "time": 1e9,
        f"train/success_rate/{evil}": 0.5,
        "train/episodes": 8,
        "train/success_rate": 1,
    }
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (folder / f"{evil}.md").write_text("x")
    (folder / "train_config.json").write_text(json.dumps({"job_name": evil, "algorithm": {evil: evil}}))
    with watched(folder) as address:
        page.open(address)
        page.wait_for_rows(1)
        assert evil in page.text("#tasks")
        assert page.run("document.querySelectorAll('img').length") == 0
        assert page.errors() == []


def test_a_server_that_ends_is_said(tmp_path, page):
    write_rows(tmp_path, 2)
    with watched(tmp_path) as address:
        page.open(address)
        page.wait_for_rows(2)
    page.wait(lambda: page.text("#state") == "the page's server is gone")


def test_pictures_are_those_of_the_docs():
    page = (ROOT / "docs/watching.md").read_text()
    for name in ("wide_light", "narrow_dark"):
        assert f"results/watch/{name}.png" in page
        assert (ROOT / f"docs/results/watch/{name}.png").exists()
