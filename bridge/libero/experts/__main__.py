"""``python -m bridge.libero.experts``: how often the expert succeeds in each task, and in how many steps."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from bridge.command.help import Parser
from bridge.libero.experts.command_line import add_options, read_options
from bridge.libero.experts.measured import RESULTS, TABLE, Measured, measure
from bridge.processes import pool
from pirl_jax.command import shorten_import_warnings
from pirl_jax.console.log import log_to_console
from pirl_jax.console.progress import Progress
from pirl_jax.ending import end_on_signal, in_one_line

logger = logging.getLogger(__name__)
_FORESEEN = (ValueError, RuntimeError)
_MORE = "Nothing is drawn. The same command goes on where it was interrupted, at the next task."


def _measure(options: argparse.Namespace) -> Measured:
    asked = read_options(options)
    settings = {
        "expert": str(asked.expert),
        "noise": asked.expert.noise,
        "aim_offset_mm": list(asked.expert.aim_offset_mm),
        "init_states": f"{asked.states.start}:{asked.states.stop}",
        "episodes": options.episodes,
        "seed": options.seed,
    }
    measured = Measured(options.output_dir, settings)
    from bridge.libero.tasks import instruction

    waiting = [task for task in asked.tasks if task not in measured]
    if len(waiting) < len(asked.tasks):
        logger.info("%d of %d tasks were measured before", len(asked.tasks) - len(waiting), len(asked.tasks))
    count = options.episodes * len(asked.tasks)
    before = count - options.episodes * len(waiting)
    with pool(options.processes) as workers, Progress("playing", count, "episodes", before) as progress:
        for task in waiting:
            episodes, won = [], 0
            for episode in measure(
                *(workers, task, asked.expert, asked.states),
                *(options.episodes, options.seed, 2 * options.processes),
            ):
                episodes.append(episode)
                won = sum(episode["success"] for episode in episodes)
                progress.advance(more=f"{won} of {len(episodes)} successful in {task.label}")
            logger.info("%s: %d of %d successful", task.label, won, len(episodes))
            measured.add(task, instruction(task), episodes)
    return measured


def main() -> None:
    """Parse the command line and measure."""
    parser = Parser("experts", prog="python -m bridge.libero.experts", description=_MORE)
    add_options(parser, episodes=20)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/libero_experts"))
    options = parser.parse_args()
    log_to_console()
    shorten_import_warnings()
    end_on_signal("; the same command goes on with the next task")
    try:
        with in_one_line(options.output_dir, _FORESEEN):
            measured = _measure(options)
    except _FORESEEN as error:
        sys.exit(f"error: {error}")
    print(measured.table())
    print(f"results: {options.output_dir}/{TABLE} and {options.output_dir}/{RESULTS}")


if __name__ == "__main__":
    main()
