"""What the page is told: everything once, then what is new."""

import json

from watched_run import config, say, status, write_checkpoint, write_config, write_long, write_rows

from bridge.watch.run import Run


def merged(points, news):
    """The page's points after an answer, as page/page.js puts them together."""
    if news["first"] == 0 or points is None or points["key"] != news["key"]:
        points = {"key": news["key"], "groups": {}}
    for group in ("x", "mean", "low", "high", "exploring"):
        for name, values in news[group].items():
            known = points["groups"].setdefault((group, name), [None] * news["first"])
            known[news["first"] :] = values
    return points


def known(points):
    return len(points["groups"]["x", "step"])


def test_what_is_put_together_from_news_is_what_one_look_sees(tmp_path):
    write_long(tmp_path, 1700)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("")
    run, points, before = Run(tmp_path), None, 0
    for updates in (0, 1, 2, 30, 31, 799, 801, 802, 1700):
        with path.open("a") as file:
            file.writelines(lines[before:updates])
        before = updates
        news = run.news(points["key"] if points else "", known(points) if points else 0)
        json.dumps(news, allow_nan=False)
        points = merged(points, news)
        assert points == merged(None, Run(tmp_path).news())
    assert news["width"] == 4
    assert news["now"]["rows"] == 1700


def test_an_answer_without_news_is_small(tmp_path):
    write_rows(tmp_path, 300)
    write_config(tmp_path)
    run = Run(tmp_path)
    first = run.news()
    again = run.news(first["key"], len(first["x"]["step"]), first["about"]["hash"])
    assert "about" not in again
    assert again["first"] == 299
    assert len(json.dumps(again)) < len(json.dumps(first)) / 10


def test_rows_that_are_appended_come_alone(tmp_path):
    write_long(tmp_path, 50)
    run = Run(tmp_path)
    first = run.news()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 51, "time": 2e9, "train/episodes": 64, "train/success_rate": 1.0}\nno row\n')
    news = run.news(first["key"], 50, first["about"]["hash"])
    assert (news["first"], news["x"]["step"], news["now"]["rows"], news["now"]["broken"]) == (
        49,
        [50, 51],
        51,
        1,
    )
    assert news["mean"]["train/success_rate"][1] == 1.0


def test_a_run_is_told_as_it_stands(tmp_path):
    say(tmp_path, status(0, arrived=37))
    now = Run(tmp_path).news()["now"]
    assert now["state"] == "running"
    assert now["words"] == "No update yet: 37 of 64 episodes are there, 6 actors, 6 being played."
    assert [actor["behind"] for actor in now["actors"]] == [1, 0, 0, 1, 0, 0]
    assert [actor["per_minute"] for actor in now["actors"]] == [0.0, 0.05, 0.1, 0.15, 0.2, 0.25]
    write_rows(tmp_path, 40)
    write_config(tmp_path)
    write_checkpoint(tmp_path, 40, 0.5)
    news = Run(tmp_path).news()
    now, about = news["now"], news["about"]
    assert now["headline"]["update"] == 40
    assert now["headline"]["episodes"] == 40 * 64
    assert 46 < now["headline"]["update_s"] < 48
    assert now["headline"]["left_s"] == 160 * now["headline"]["update_s"]
    assert len(now["evaluations"]) == 3
    assert about["config"]["preset"]["name"] == "xvla_default.json"
    assert about["config"]["settings"]["algorithm.optimizer.target_kl"] == "0.1"
    assert about["config"]["steps"] == config()["steps"]


def test_without_a_word_of_a_learner_that_is_said(tmp_path):
    run = Run(tmp_path)
    assert run.news()["now"]["state"] == "starting"
    assert run.news()["now"]["words"].startswith("No update yet, and no word of a learner")
    write_rows(tmp_path, 3)
    assert run.news()["now"]["state"] == "unknown"
    write_config(tmp_path)
    write_rows(tmp_path, 200)
    assert Run(tmp_path).news()["now"]["state"] == "finished"


def test_a_learner_that_has_fallen_silent_is_not_running(tmp_path):
    say(tmp_path, status(3))
    said = json.loads((tmp_path / "status.json").read_text())
    (tmp_path / "status.json").write_text(json.dumps(said | {"time": said["time"] - 600}))
    now = Run(tmp_path).news()["now"]
    assert now["state"] == "stopped"
    assert "No learner has been heard of for 10 min" in now["words"]
    assert all(actor["seen_s"] >= 600 for actor in now["actors"])


def test_a_file_that_is_no_status_is_passed_over(tmp_path):
    for text in (
        "",
        "{}",
        "[1]",
        '{"time": "now"}',
        '{"time": 1, "began": 1, "update": -1}',
        "\0" * 9,
        "[" * 9999,
    ):
        (tmp_path / "status.json").write_text(text)
        assert Run(tmp_path).news()["now"]["actors"] == []
