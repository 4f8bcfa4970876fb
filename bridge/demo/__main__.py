"""``python -m bridge.demo``: from nothing to a policy that reinforcement learning has made better."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path

from bridge.command.help import Parser
from pirl_jax.command import shorten_import_warnings
from pirl_jax.console.log import log_to_console
from pirl_jax.ending import end_on_signal, in_one_line

logger = logging.getLogger(__name__)
_MORE = """Scripted demonstrations → supervised warm start in JAX → π-RL (the learner and stock LeRobot
actors, as the separate processes that a user would start) → the policies before and after on the same
held-out episodes. Ctrl-C ends it with everything that it has started."""


def main() -> None:
    """Parse the command line and run the demo."""
    parser = Parser("demo", prog="python -m bridge.demo", description=_MORE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--demonstrations", type=int, default=250)
    parser.add_argument("--episodes", type=int, default=300, help="held-out episodes before and after")
    arguments = parser.parse_args()
    end_on_signal(f"; what was done is in {arguments.output_dir}, and the next demo begins anew")
    log_to_console()
    shorten_import_warnings()
    output_dir: Path = arguments.output_dir
    if output_dir.exists():
        aside = output_dir.with_name(f"{output_dir.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        output_dir.rename(aside)
        logger.info("the previous run is now in %s", aside)
    output_dir.mkdir(parents=True)
    try:
        with in_one_line(output_dir, (RuntimeError,)):
            _run(arguments)
    except RuntimeError as error:
        sys.exit(f"error: {error}")


def _run(arguments: argparse.Namespace) -> None:
    # Takes seconds to import, in which a signal has its line already.
    from bridge.demo.evaluate import Evaluator
    from bridge.demo.phases import RESULTS, Demo, table

    output_dir: Path = arguments.output_dir
    with Evaluator() as evaluator:
        demo = Demo(output_dir, arguments.seed, arguments.demonstrations, arguments.episodes, evaluator)
        summary = demo.run()
    (output_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"\n{table(summary)}\n\nresults: {output_dir}/", *RESULTS, sep="\n  ")


if __name__ == "__main__":
    main()
