"""Every command's lines look alike, and say what is worth a line."""

import io
import logging
import re
import sys

import pytest
from lerobot.utils.utils import init_logging

from pirl_jax.console.log import ConsoleHandler, LineFormatter, log_to_console


def record(name="pirl_jax.training.metrics", level=logging.INFO, message="update 1", **values):
    return logging.LogRecord(name, level, __file__, 62, message, (), values.get("error"))


def test_a_line_is_the_time_and_the_message():
    assert re.fullmatch(r"\d\d:\d\d:\d\d update 1", LineFormatter().format(record()))


@pytest.mark.parametrize("level", ["WARNING", "ERROR"])
def test_a_level_is_said_if_it_is_not_the_usual_one(level):
    line = LineFormatter().format(record(level=getattr(logging, level)))
    assert re.fullmatch(rf"\d\d:\d\d:\d\d {level} update 1", line)


@pytest.mark.parametrize(
    ("name", "level", "worth"),
    [
        ("pirl_jax.learner", logging.INFO, True),
        ("bridge.wire.server", logging.INFO, True),
        ("__main__", logging.INFO, True),
        ("bridge.wire.server", logging.DEBUG, False),
        ("pirl_jax_of_somebody_else", logging.INFO, False),
        ("root", logging.INFO, False),
        ("httpx", logging.INFO, False),
        ("httpx", logging.WARNING, True),
    ],
)
def test_ours_are_heard_and_of_libraries_what_may_be_trouble(name, level, worth):
    passed = bool(ConsoleHandler().filter(record(name, level))) and level >= logging.INFO
    assert passed is worth
    assert ConsoleHandler(("root",)).filter(record("root"))


def test_it_takes_the_place_of_a_librarys_lines_and_comes_once(monkeypatch):
    root = logging.getLogger()
    library = logging.StreamHandler(io.StringIO())
    library.setFormatter(logging.Formatter("%(levelname)s x/metrics.py:62 %(message)s"))
    root.addHandler(library)
    for _ in range(2):
        log_to_console()
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # as a bar does, which is drawn below the lines
    logging.getLogger("bridge.somewhere").info("what %s", "there is")
    logging.getLogger("somebody").info("noise")
    assert re.fullmatch(r"\d\d:\d\d:\d\d what there is\n", sys.stderr.getvalue())
    assert library.stream.getvalue() == ""
    assert sum(isinstance(handler, ConsoleHandler) for handler in root.handlers) == 1


def test_a_stock_actor_says_the_same_in_our_form_and_its_file_stays_lerobots(tmp_path, monkeypatch):
    """As ``bridge.plugin.transport`` does it, once LeRobot has set its own logging up."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    init_logging(log_file=tmp_path / "actor.log")
    log_to_console(also=("root",))
    logging.info("[ACTOR] Connection with Learner established")
    logging.getLogger("httpx").info("HTTP request")
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d \[ACTOR\] Connection with Learner established\n", sys.stderr.getvalue()
    )
    assert "INFO " in (tmp_path / "actor.log").read_text()
    for handler in logging.getLogger().handlers:
        handler.close()
