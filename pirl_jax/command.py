"""A command line in LeRobot's dialect: parsed, validated, run; what is wrong with it in one line."""

from __future__ import annotations

import logging
import os
import sys
from argparse import ArgumentError
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pirl_jax.console.log import log_to_console
from pirl_jax.ending import end_on_signal, end_quickly, fail, write_traceback
from pirl_jax.recipe.renamed import refuse_old_names
from pirl_jax.run_folder.lock import set_aside, was_ours
from pirl_jax.run_folder.manifest import whole
from pirl_jax.run_folder.resuming import RESUMES, plainly


def run_command(
    run: Callable[[Any], None], load_config_class: Callable[[], type], only_looks: bool = False
) -> None:
    """Parse the command line as a config and ``run`` it; an error ends the process with one line.

    The traceback of what ``run`` raises goes to ``output_dir``.

    Args:
        run: takes the validated config.
        load_config_class: imports LeRobot and returns one of its training configs, or an extension of one.
        only_looks: ``run`` leaves nothing in ``output_dir``, so that Python prints what was not foreseen, and
            reads no weights of a checkpoint to go on from, so that those are not verified.
    """
    end_quickly()
    log_to_console()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries, which no file can show
    shorten_import_warnings()
    from draccus.utils import DraccusException
    from lerobot.configs import parser

    folder: Path | None = None  # once it is this run's

    def parsed(cfg: Any) -> None:
        nonlocal folder
        if cfg.output_dir and not cfg.resume:
            set_aside(Path(cfg.output_dir))
        cfg.validate()
        folder = None if only_looks else Path(cfg.output_dir)
        run(cfg)

    try:
        end_on_signal(" before there was anything to save")  # until there is (`ending.Stop`)
        sys.argv[1:] = plainly(sys.argv[1:])
        if RESUMES in sys.argv:
            sys.argv[1:] = [_whole(argument, only_looks) for argument in sys.argv[1:]]
        refuse_old_names(sys.argv[1:])
        parsed.__annotations__["cfg"] = load_config_class()  # what LeRobot's parser goes by
        parser.wrap()(parsed)()  # pyright: ignore[reportCallIssue] - it gets its argument from the parser
    except (ValueError, OSError, FloatingPointError, ArgumentError, DraccusException) as error:
        if folder is not None and not _is_ours(error):
            fail(error, folder)
        if folder is not None and was_ours(folder):
            write_traceback(error, folder)
        sys.exit(f"error: {error}")
    except Exception as error:
        fail(error, folder)


def _is_ours(error: BaseException) -> bool:
    """Tell whether an error's words are for users: a ValueError of somebody else's code explains nothing."""
    if not isinstance(error, ValueError):
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    raised_in = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    return raised_in.partition(".")[0] in ("pirl_jax", "bridge", "__main__")


def _whole(argument: str, quick: bool) -> str:
    """Return ``--config_path=…`` with the checkpoint that a run may go on from, and other arguments as is."""
    name, _, value = argument.partition("=")
    return f"{name}={whole(Path(value), quick)}" if name == "--config_path" and value else argument


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
