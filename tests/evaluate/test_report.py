"""What a person reads in a report is what the episodes say."""

import json

import imageio.v2 as imageio
import pytest
from libero_episodes import identity, results, settings

from bridge.evaluate.assets import NOTICE
from bridge.evaluate.grid import Grid
from bridge.evaluate.report import make_report, markdown, read_report, write_report
from bridge.evaluate.settings import Checkpoint, Settings
from bridge.evaluate.spread import rate
from bridge.evaluate.trained import unlike_training
from pirl_jax.training.interval import wilson

T, F = True, False
OUTCOMES = {"libero_object": [[T, T, T, F], [T, F, F, F]], "libero_10": [[F, F, F, F]]}


@pytest.fixture
def report():
    of = settings(seed=7)
    return make_report(of, identity(of), results(of, OUTCOMES))


def test_rates_intervals_and_numbers_of_episodes(report):
    suites = report["suites"]
    outcomes = {
        (suite, task_id, i, 7 + i): success
        for suite, tasks in OUTCOMES.items()
        for task_id, successes in enumerate(tasks)
        for i, success in enumerate(successes)
    }
    keys = list(outcomes)
    assert suites["libero_object"]["successes"] == 4
    assert suites["libero_object"]["n"] == 8
    assert suites["libero_object"]["ci95"] == rate(Grid.of([outcomes], keys[:8]))["ci95"]
    assert [task["success"] for task in suites["libero_object"]["tasks"]] == [0.75, 0.25]
    assert suites["libero_object"]["tasks"][1]["ci95"] == pytest.approx(wilson(1, 4))
    assert suites["libero_object"]["tasks"][1]["ci95_new_tasks"] is None
    whole = Grid.of([outcomes], keys)
    assert report["overall"] == rate(whole, pooled=True) | {"successes": 4, "n": 12}
    assert report["overall"]["success"] == pytest.approx(4 / 12)
    assert report["suite_average"] == rate(whole) | {"successes": 4, "n": 12}
    assert report["suite_average"]["success"] == pytest.approx((0.5 + 0.0) / 2)
    assert report["seconds"] == 30.0


def test_every_episode_is_there_with_initial_state_and_seed(report):
    got = [(e["suite"], e["task_id"], e["init_state"], e["seed"], e["success"]) for e in report["episodes"]]
    want = [
        (suite, task_id, i, 7 + i, success)
        for suite, tasks in OUTCOMES.items()
        for task_id, successes in enumerate(tasks)
        for i, success in enumerate(successes)
    ]
    assert got == want


def test_tasks_have_their_instructions(report):
    tasks = report["suites"]["libero_object"]["tasks"]
    assert tasks[0]["instruction"] == "pick up the alphabet soup and place it in the basket"
    # Of LIBERO-10's names, the scene is no part of the instruction.
    assert report["suites"]["libero_10"]["tasks"][0]["instruction"].startswith("put both the alphabet soup")


def test_the_four_files_are_written_and_read_back(report, tmp_path):
    write_report(report, tmp_path / "out")
    names = {"report.json", "report.md", "report.png", "report.html"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names
    assert read_report(tmp_path / "out") == json.loads(json.dumps(report))
    image = imageio.imread(tmp_path / "out" / "report.png")
    assert image.shape[0] > 200
    assert image.std() > 10


def test_the_text_says_how_it_was_measured(report):
    text = markdown(report)
    for part in (
        "| suite | success | 95 %: these tasks | 95 %: new tasks of this kind | n |",
        "| libero_object | 50.0 % | 22.7 – 77.3 | 0.6 – 99.4 | 8 |",
        "| libero_10 | 0.0 % | 0.0 – 49.0 | – | 4 |",
        "| average of suites | 25.0 % | 9.7 – 51.0 | – | 12 |",
        "| all tasks | 33.3 % | 15.0 – 58.5 | – | 12 |",
        "- *these tasks*: what this policy reaches on just these tasks. Episodes vary; tasks are fixed.",
        "- *new tasks of this kind*: what it would reach on other tasks",
        "Neither covers another training run",
        "●●●○",
        "absolute",
        "libero_object 800, libero_10 800",
        "7 to 10",
        "torch 2.11.0",
        "sha-a",
    ):
        assert part in text


def test_development_assets_are_called_that_everywhere(report, tmp_path):
    assert report["notice"] == NOTICE
    assert report["assets"]["comparable_with_published"] is False
    assert NOTICE in markdown(report)
    write_report(report, tmp_path / "development")
    write_report(report | {"notice": None}, tmp_path / "silent")
    with_notice, without = (
        imageio.imread(tmp_path / name / "report.png")[-40:] for name in ("development", "silent")
    )
    assert ((with_notice[..., 0] > 140) & (with_notice[..., 1] < 60)).any()  # red letters in the last rows
    assert not ((without[..., 0] > 140) & (without[..., 1] < 60)).any()


def test_lerobots_own_assets_carry_no_notice():
    of = settings()
    assets = {"kind": "lerobot", "revision": "abc", "reason": "hub download, revision abc"}
    report = make_report(of, identity(of, assets=assets), results(of, OUTCOMES))
    assert report["notice"] is None
    assert report["assets"]["comparable_with_published"] is True
    assert "revision abc" in markdown(report)
    assert "comparable" not in markdown(report)


def test_more_episodes_than_initial_states_begin_again():
    of = settings(n_episodes=52)
    report = make_report(of, identity(of), results(of, {"libero_goal": [[T] * 52]}))
    assert [episode["init_state"] for episode in report["episodes"][48:]] == [48, 49, 0, 1]


def test_where_suites_are_alike_their_average_is_all_there_is():
    of = settings()
    report = make_report(of, identity(of), results(of, {"libero_goal": [[T] * 4], "libero_10": [[F] * 4]}))
    assert "average of suites | 50.0 %" in markdown(report)
    assert "all tasks" not in markdown(report)


def test_a_report_of_the_first_format_is_read(report, tmp_path):
    write_report(report | {"format": 1}, tmp_path)
    assert read_report(tmp_path)["format"] == 1


def test_a_folder_without_a_report_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no report"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="format 99"):
        read_report(tmp_path)


def test_episodes_that_are_not_those_of_the_run_are_told(tmp_path):
    """By its config, which lies in its checkpoints; an evaluation has LeRobot's own length otherwise."""
    env = {"type": "libero", "control_mode": "absolute", "episode_length": 280}
    config = {"algorithm": {"type": "pi_rl"}, "env": env}
    (tmp_path / "train_config.json").write_text(json.dumps(config))

    def of(**values):
        return Settings.make(Checkpoint(tmp_path, "xvla", "sha"), n_episodes=2, **values)

    longer = (
        "episodes of libero_goal end after 800 steps here, and after 280 in training: --episode_length=280"
    )
    assert unlike_training(of(), ["libero_goal"]) == [longer]
    assert unlike_training(of(episode_length=280), ["libero_goal"]) == []
    (mode,) = unlike_training(of(episode_length=280, control_mode="relative"), ["libero_goal"])
    assert mode == "control is relative here, and was absolute in training: --control_mode=absolute"
    report = make_report(of(), identity(of()), results(of(), {"libero_goal": [[True, False]]}))
    assert f"> Not as the run that made this policy: {longer}." in markdown(report)
    (tmp_path / "train_config.json").write_text(json.dumps({"env": env}))  # supervised: nothing was played
    assert unlike_training(of(), ["libero_goal"]) == []
    (tmp_path / "train_config.json").unlink()
    assert unlike_training(of(), ["libero_goal"]) == []
