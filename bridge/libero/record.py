"""``python -m bridge.libero.record``: a scripted expert's demonstrations of LIBERO's tasks, for X-VLA."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bridge.command.help import Parser
from bridge.libero.experts.command_line import add_options, read_options
from bridge.libero.suites import SUITES, select_tasks
from bridge.libero.tally import Tally, asked_for
from pirl_jax.command import shorten_import_warnings
from pirl_jax.console.log import log_to_console
from pirl_jax.ending import end_on_signal, in_one_line
from pirl_jax.files import write_json

RECORDED = "recorded.json"
"""How it was recorded, and how many attempts each task took."""
_FORESEEN = (ValueError, RuntimeError)
_MORE = """The project's expert plays where one plays the task, else one of yours (--expert). Writes a
LeRobotDataset, a tokenizer that knows every task's words, and how often the expert succeeded. The
same command goes on with a recording that was stopped."""


def _record(options: argparse.Namespace) -> None:
    asked = read_options(options)
    root = options.output_dir / "dataset"
    settings: dict[str, Any] = {
        "states": asked.states,
        "image_size": options.image_size,
        "seed": options.seed,
    }
    # Refuses a dataset that is there, before what takes long to import.
    Tally.of(root, asked_for(asked.tasks, options.episodes, asked.expert, **settings))
    from bridge.datasets.tokenizer import build_tokenizer
    from bridge.libero.recording import record
    from bridge.libero.tasks import instruction

    words = map(instruction, select_tasks(",".join(SUITES), None))
    build_tokenizer(options.output_dir / "tokenizer", words)
    attempted = record(
        root, asked.tasks, options.episodes, asked.expert, processes=options.processes, **settings
    )
    said = {name: str(value) for name, value in vars(options).items() if value is not None}
    write_json(
        options.output_dir / RECORDED,
        {"settings": said, "episodes": options.episodes, "attempts": attempted},
    )


def main() -> None:
    """Parse the command line and record."""
    parser = Parser("record", prog="python -m bridge.libero.record", description=_MORE)
    add_options(parser, episodes=50)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/libero_small"))
    options = parser.parse_args()
    log_to_console()
    shorten_import_warnings()
    end_on_signal(f"; what was recorded is in {options.output_dir}, and the same command goes on")
    try:
        with in_one_line(options.output_dir, _FORESEEN):
            _record(options)
    except _FORESEEN as error:
        sys.exit(f"error: {error}")
    folder = options.output_dir
    print(f"results: {folder}/dataset, {folder}/tokenizer and {folder}/{RECORDED}")


if __name__ == "__main__":
    main()
