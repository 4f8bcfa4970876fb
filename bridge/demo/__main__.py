"""``python -m bridge.demo``: from nothing to a policy that reinforcement learning has made better.

Scripted demonstrations → supervised warm start in JAX → PI-RL (the learner and stock LeRobot actors, as the
separate processes that a user would start) → the policies before and after on the same held-out episodes.

With ``--quick`` PI-RL alone, from a clone that comes with the package, and its first updates beside its last.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path

from pirl_jax.command import shorten_import_warnings
from pirl_jax.ending import end_on_signal, in_one_line

logger = logging.getLogger("demo")

_DEMONSTRATIONS, _EPISODES = 250, 300


def main() -> None:
    """Parse the command line and run the demo."""
    arguments = _parsed()
    end_on_signal(f"; what was done is in {arguments.output_dir}, and the next demo begins anew")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    for name in ("demo", "bridge"):  # what libraries do step by step is of no interest here
        logging.getLogger(name).setLevel(logging.INFO)
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


def _parsed() -> argparse.Namespace:
    """Read the command line.

    Raises:
        SystemExit: It does not fit; with a line that says what to do.
    """
    parser = argparse.ArgumentParser(prog="python -m bridge.demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="PI-RL alone: minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output_dir", type=Path, help="default: outputs/demo or, with --quick, outputs/quick"
    )
    full = parser.add_argument_group("not with --quick")
    full.add_argument("--demonstrations", type=int, help=f"default: {_DEMONSTRATIONS}")
    full.add_argument(
        "--episodes", type=int, help=f"held-out, before and after the training; default: {_EPISODES}"
    )
    given = parser.parse_args()
    for name, default in (("demonstrations", _DEMONSTRATIONS), ("episodes", _EPISODES)):
        if given.quick and getattr(given, name) is not None:
            sys.exit(f"error: --{name} is not read with --quick, which has none: leave one of them out.")
        if getattr(given, name) is None:
            setattr(given, name, default)
    given.output_dir = given.output_dir or Path("outputs/quick" if given.quick else "outputs/demo")
    return given


def _run(arguments: argparse.Namespace) -> None:
    # Each takes seconds to import, in which a signal has its line already.
    if arguments.quick:
        from bridge.demo.quick.run import RESULTS, run, table

        summary = run(arguments.output_dir, arguments.seed)
        print(f"\n{table(summary)}\n\nresults: {arguments.output_dir}/", *RESULTS, sep="\n  ")
        return
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
