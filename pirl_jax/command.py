"""A command line in LeRobot's dialect: parsed, validated, run; what is wrong with it in one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


def run_command(run: Callable[[Any], None], config_class: type) -> None:
    """Parse the command line as a ``config_class`` and ``run`` it; an error ends the process with one line.

    Args:
        run: takes the validated config.
        config_class: one of LeRobot's training configs, or an extension of one.
    """
    from draccus.utils import DraccusException
    from lerobot.configs import parser
    from lerobot.utils.utils import init_logging

    def parsed(cfg: Any) -> None:
        cfg.validate()
        init_logging()
        logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax reports a dozen lines a checkpoint
        run(cfg)

    parsed.__annotations__["cfg"] = config_class  # what LeRobot's parser goes by
    try:
        parser.wrap()(parsed)()  # pyright: ignore[reportCallIssue] - it gets its argument from the parser
    except (ValueError, OSError, FloatingPointError, DraccusException) as error:
        logger.debug("details", exc_info=True)
        sys.exit(f"error: {reason(error)}")


def reason(error: BaseException) -> str:
    """Return an error's text with that of what caused it first, which LeRobot's parser leaves out."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    return str(error) if str(first) in str(error) else f"{str(error).strip()} {first}"
