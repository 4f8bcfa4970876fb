"""A command line in LeRobot's dialect: parsed, validated, run; what is wrong with it in one line."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from argparse import ArgumentError
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from pirl_jax.recipe.renamed import refuse_old_names
from pirl_jax.run_folder.lock import set_aside
from pirl_jax.run_folder.manifest import whole

logger = logging.getLogger(__name__)

QUIET = {
    "absl": logging.CRITICAL,  # Orbax: a dozen lines a checkpoint, a hundred on an error that it raises too
    "jax._src.xla_bridge": logging.WARNING,  # which kinds of device this machine does not have
}
"""Loggers whose lines look like trouble and are none → the level from which they are heard."""


def run_command(run: Callable[[Any], None], load_config_class: Callable[[], type]) -> None:
    """Parse the command line as a config and ``run`` it; an error ends the process with one line.

    Args:
        run: takes the validated config.
        load_config_class: imports LeRobot and returns one of its training configs, or an extension of one.
    """
    shorten_import_warnings()
    from draccus.utils import DraccusException
    from lerobot.configs import parser
    from lerobot.utils.utils import init_logging

    stderr, unsaid = sys.stderr, io.StringIO()

    def parsed(cfg: Any) -> None:
        sys.stderr = stderr
        stderr.write(unsaid.getvalue())
        unsaid.seek(0)
        unsaid.truncate()
        if cfg.output_dir and not cfg.resume:
            set_aside(Path(cfg.output_dir))
        cfg.validate()
        init_logging()
        for name, level in QUIET.items():
            logging.getLogger(name).setLevel(level)
        run(cfg)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)  # until there is something to save (`ending.Stop`)
        if "--resume=true" in sys.argv:
            sys.argv[1:] = [_whole(argument) for argument in sys.argv[1:]]
        refuse_old_names(sys.argv[1:])
        parsed.__annotations__["cfg"] = load_config_class()  # what LeRobot's parser goes by
        sys.stderr = unsaid  # argparse prints every option of every config before it says what is wrong
        parser.wrap()(parsed)()  # pyright: ignore[reportCallIssue] - it gets its argument from the parser
    except (ValueError, OSError, FloatingPointError, ArgumentError, DraccusException) as error:
        logger.debug("details", exc_info=True)
        sys.exit(f"error: {reason(error)}")
    except SystemExit as stop:
        if stop.code and (text := unsaid.getvalue().strip()):
            sys.exit("error: " + text.rsplit("error: ", 1)[-1])
        raise
    finally:
        sys.stderr = stderr


def _stop(number: int, _: FrameType | None) -> None:
    line = f"stopped by {signal.Signals(number).name} before there was anything to save\n"
    os.write(2, line.encode())  # `sys.stderr` may be held back
    sys.exit(128 + number)


def _whole(argument: str) -> str:
    """Return ``--config_path=…`` with the checkpoint that a run may go on from, and other arguments as is."""
    name, _, value = argument.partition("=")
    return f"{name}={whole(Path(value))}" if name == "--config_path" and value else argument


def shorten_import_warnings() -> None:
    """Call before LeRobot is imported: of a report on missing FFmpeg, 130 lines, the last stays, once."""
    said = set()

    def last_line(record: logging.LogRecord) -> bool:
        line = record.getMessage().strip().splitlines()[-1]
        record.msg, record.args = line.replace(" (see the error above)", ""), ()
        new = record.msg not in said
        said.add(record.msg)
        return new

    logging.getLogger("lerobot.utils.import_utils").addFilter(last_line)


def reason(error: BaseException) -> str:
    """Return an error's text with that of what caused it first, which LeRobot's parser leaves out."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    return str(error) if str(first) in str(error) else f"{str(error).strip()} {first}"
