"""How far something is: a bar on a terminal, elsewhere lines."""

import logging
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from pirl_jax.console import last_time
from pirl_jax.console.progress import Progress, working


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caplog.set_level(logging.INFO)
    return Clock(monkeypatch)


def test_what_is_quick_is_not_spoken_of(clock, caplog):
    with Progress("encoding", 100, "frames") as progress:
        for _ in range(100):
            clock.now += 0.04
            progress.advance()
    assert caplog.messages == []


def test_lines_come_after_five_seconds_at_most_one_in_ten_with_the_time_left(clock, caplog):
    with Progress("encoding", 60, "frames") as progress:
        for done in range(1, 61):
            clock.now += 1.0
            progress.at(done, "2 workers")
    assert caplog.messages == [
        *(
            f"encoding: {done} of 60 frames, 2 workers, about {60 - done} s left"
            for done in (5, 15, 25, 35, 45, 55)
        ),
        "encoding: 60 frames in 60 s, 2 workers",
    ]


def test_what_was_done_before_says_nothing_of_how_fast_it_goes(clock, caplog):
    with Progress("recording", 100, "episodes", done=80) as progress:
        clock.now += 10.0
        progress.at(90)
        assert caplog.messages == ["recording: 90 of 100 episodes, about 10 s left"]
        clock.now += 1.0
        progress.at(100)
    assert caplog.messages[1:] == ["recording: 20 episodes in 11 s"]


def test_a_failure_is_not_told_as_an_end(clock, caplog):
    def fail():
        with Progress("encoding", 100, "frames"), working("compiling", "1 MB"):
            clock.now += 60.0
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert caplog.messages == ["compiling"]
    assert not last_time.file().exists()


def test_what_nothing_is_known_of_is_not_noted(clock, caplog):
    with working("writing /a/folder"):
        clock.now += 60.0
    assert caplog.messages == ["writing /a/folder", "writing /a/folder: done in 60 s"]
    assert not last_time.file().exists()


def test_what_has_no_steps_says_how_long_it_took_last_time(clock, caplog):
    def compile_for(seconds):
        with working("compiling", "1 MB"):
            clock.now += seconds

    for seconds in (40.0, 1.0, 2.0):
        compile_for(seconds)
    assert caplog.messages == [
        *("compiling", "compiling: done in 40 s"),
        "compiling: the last time it took 40 s",
        "compiling: the last time it took 1 s",
    ]


@pytest.mark.parametrize("spoilt", ["{", "[]", '{"compiling": "soon"}', '{"compiling": -1}'])
def test_a_spoilt_note_of_the_last_time_is_none(clock, spoilt):
    last_time.file().parent.mkdir(parents=True)
    last_time.file().write_text(spoilt)
    assert last_time.seconds("compiling") is None
    last_time.note("compiling", 12.34)
    assert last_time.seconds("compiling") == 12.3


def test_where_nothing_can_be_noted_nothing_is(clock, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    last_time.note("compiling", 12.0)
    assert last_time.seconds("compiling") is None


PROGRAM = """
import logging, time
from pirl_jax.console import progress
from pirl_jax.console.log import log_to_console
progress.LONG_S = 0.0
log_to_console()
with progress.Progress("encoding [x]", 3, "frames") as shown, progress.working("inside"):
    for _ in range(3):
        shown.advance()
        logging.getLogger("pirl_jax").info("a line between")
        time.sleep(0.1)
"""


def on_terminal(program, **environment):
    """Return what a program writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment},
    ) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                said += os.read(ours, 1 << 16)
            except OSError:  # Linux: nobody has the terminal open any more
                break
        assert process.wait() == 0
    os.close(ours)
    return said.decode()


def test_a_terminal_has_a_bar_with_lines_above_it_and_keeps_the_lines(tmp_path):
    said = on_terminal(PROGRAM, XDG_CACHE_HOME=str(tmp_path))
    assert "encoding [x]: 3 of 3 frames" in said
    assert "━" in said
    assert said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l")  # its cursor is there again
    assert len(re.findall(r"\d\d:\d\d:\d\d a line between", said)) == 3
    assert re.search(r"\d\d:\d\d:\d\d encoding \[x\]: 3 frames in \d+ s", said)


def test_what_is_no_terminal_has_lines_without_control_characters(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    for variables in (environment, {**environment, "FORCE_COLOR": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=variables, check=True
        )
        assert done.stdout == ""
        assert re.fullmatch(r"(\d\d:\d\d:\d\d [ -~]+\n)+", done.stderr)
        assert done.stderr.count("encoding [x]: 1 of 3 frames") == 1


def test_a_dumb_terminal_has_lines(tmp_path):
    said = on_terminal(PROGRAM, TERM="dumb", XDG_CACHE_HOME=str(tmp_path))
    assert "\x1b" not in said
    assert "encoding [x]: 1 of 3 frames" in said
