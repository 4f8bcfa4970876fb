"""What a learner keeps of its episodes to look at."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import toy_run

from bridge.videos import recorder
from bridge.videos.film import FAILURE, SUCCESS, read_film, write_film
from bridge.videos.recorder import FPS, Recorder, path_of, pictures
from pirl_jax.recipe import VideosConfig


def played(number, success, task="", size=32, views=2, chunks=3):
    """An episode whose picture i is as bright as i, red in the first camera and blue in the second."""
    images = np.zeros((chunks + 1, views, 3, size, size), np.uint8)
    for i in range(chunks + 1):
        images[i, :1, 0] = images[i, 1:, 2] = 60 * i
    plain = toy_run.episode(0, chunks, terminated=success)
    observations = dataclasses.replace(plain.observations, images=images)
    return dataclasses.replace(plain, observations=observations, number=number, task=task)


def record(folder, played, **settings):
    """Let episodes pass, and wait until what is filmed of them is written."""
    with Recorder(VideosConfig(**settings), folder) as films:
        give = films.passing(lambda _: played.pop(0) if played else None)
        while give(0.0) is not None:
            pass
        films._episodes.put(None)
        films._thread.join()


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_of_so_many_episodes_a_few_are_filmed_by_task_number_and_outcome(tmp_path):
    of = [played(i, i % 2 == 0, task="libero_goal_3" if i < 8 else "") for i in range(12)]
    record(tmp_path, of, every_episodes=8, episodes=2)
    assert names(tmp_path) == [
        "videos/episode_000008_success.mp4",
        "videos/episode_000009_fail.mp4",
        "videos/libero_goal_3/episode_000000_success.mp4",
        "videos/libero_goal_3/episode_000001_fail.mp4",
    ]


@pytest.mark.parametrize(("success", "colour"), [(True, SUCCESS), (False, FAILURE)])
def test_a_film_shows_each_observation_with_all_cameras_and_how_it_ended(tmp_path, success, colour):
    record(tmp_path, [played(0, success)])
    (path,) = tmp_path.rglob("*.mp4")
    film, rate = read_film(path, 100)
    assert rate == FPS
    assert film.shape == (4 + FPS, 224, 448, 3)  # 32 pixels, seven times as large
    for i, picture in enumerate(film[:4].astype(int)):
        assert abs(picture[112, 112] - (60 * i, 0, 0)).max() < 30
        assert abs(picture[112, 336] - (0, 0, 60 * i)).max() < 30
    assert abs(film[-1, 2, 224].astype(int) - colour).max() < 30
    assert abs(film[3, 2, 100].astype(int) - (180, 0, 0)).max() < 30  # no border before the end


def test_only_the_newest_stay(tmp_path):
    record(tmp_path, [played(i, False, task=f"task {i % 2}") for i in range(5)], keep=2, episodes=5)
    assert names(tmp_path) == [
        "videos/task_0/episode_000004_fail.mp4",
        "videos/task_1/episode_000003_fail.mp4",
    ]


def test_an_episode_that_is_played_again_after_a_resume_has_one_film(tmp_path):
    record(tmp_path, [played(2, False)])
    record(tmp_path, [played(2, True)])
    assert names(tmp_path) == ["videos/episode_000002_success.mp4"]


def test_with_0_nothing_is_filmed_and_nothing_runs(tmp_path):
    before = threading.active_count()
    with Recorder(VideosConfig(every_episodes=0), tmp_path) as films:
        assert threading.active_count() == before
        assert films.passing(lambda _: played(0, True))(0.0) is not None
    assert names(tmp_path) == []


def test_episodes_pass_as_they_are_and_a_timeout_too(tmp_path):
    episode, asked = played(0, True), []
    with Recorder(VideosConfig(), tmp_path) as films:
        assert films.passing(lambda seconds: asked.append(seconds) or episode)(0.25) is episode
        assert films.passing(lambda seconds: None)(0.25) is None
    assert asked == [0.25]


def test_what_lies_in_its_way_is_said_once_and_costs_the_run_nothing(tmp_path, caplog):
    (tmp_path / "videos").write_text("a file")
    record(tmp_path, [played(i, True) for i in range(4)])
    (line,) = caplog.messages
    assert line.startswith("no more episodes are filmed: ")
    assert "cannot be written to" in line


def test_episodes_without_pictures_are_said_once(tmp_path, caplog):
    record(tmp_path, [played(i, True, views=0) for i in range(4)])
    assert caplog.messages == ["no more episodes are filmed: the episodes have no pictures"]


def test_a_learner_is_never_kept_waiting(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    busy = threading.Event()
    monkeypatch.setattr(recorder, "write_film", lambda *_: busy.wait(10))
    with Recorder(VideosConfig(episodes=50), tmp_path) as films:
        started = time.monotonic()
        for number in range(30):
            films.passing(lambda _, number=number: played(number, True))(0.0)
        assert time.monotonic() - started < 5
        assert films._episodes.qsize() <= recorder._WAITING
        busy.set()
    assert len([line for line in caplog.messages if "faster than films are made" in line]) == 1


def test_a_tasks_name_stays_in_the_folder(tmp_path):
    for task in ("../../etc", "/etc/passwd", "a/../b", ".hidden", "ü" * 300):
        path = path_of(tmp_path, played(1, True, task=task))
        assert path.parent.parent == tmp_path
        assert not path.parent.name.startswith(".")


@pytest.mark.parametrize("size", [1, 2, 97, 224, 300])
def test_pictures_of_any_size_become_a_film(tmp_path, size):
    episode = played(0, True, size=size, views=1)
    shown = list(pictures(episode))
    write_film(tmp_path / "film.mp4", shown, FPS)
    film, _ = read_film(tmp_path / "film.mp4", 100)
    assert len(film) == len(shown)
    assert film.shape[1] >= 224
    assert film.shape[1] % 2 == film.shape[2] % 2 == 0


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from bridge.videos.film import write_film
def frames():
    for i in range(200):
        yield np.random.default_rng(i).integers(0, 255, (224, 224, 3), dtype=np.uint8)
        if i == 150:  # a coder keeps some back before it writes anything
            print("half", flush=True)
            time.sleep(60)
write_film(Path(sys.argv[1]) / "videos/task/episode_000007_fail.mp4", frames(), 4)
"""


def test_a_killed_learner_leaves_no_broken_film_and_the_next_clears_up(tmp_path):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        os.kill(process.pid, signal.SIGKILL)
    assert names(tmp_path) == ["videos/task/.partial-episode_000007_fail.mp4"]
    record(tmp_path, [])
    assert names(tmp_path) == []


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from bridge.videos.film import write_film
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
noise = [np.random.default_rng(i).integers(0, 255, (224, 224, 3), dtype=np.uint8) for i in range(4)]
try:
    write_film(Path(sys.argv[1]) / "film.mp4", noise, 4)
except OSError as error:
    print("refused", error)
"""


def test_a_film_that_has_no_room_is_an_error_and_no_film(tmp_path):
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, cwd=root
    )
    assert done.stdout.startswith("refused"), done.stderr
    assert not (tmp_path / "film.mp4").exists()
