"""``pirl-convert``: an X-VLA checkpoint folder in the other format.

What can be refused at a glance is refused before torch, JAX and LeRobot are imported, which takes seconds.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bridge.command.help import Parser
from bridge.weights.formats import CONSUMERS, FORMATS, check_destination, local_folder
from pirl_jax.console.log import log_to_console

_MORE = """Converts an X-VLA checkpoint from LeRobot to Orbax, or back; or makes it one for lerobot-train or
lerobot-eval; or writes the policy of any checkpoint of a run. Every tensor is checked by name,
shape and value; on any failure nothing is written."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``pirl-convert``; return its exit status."""
    args = _arguments(argv)
    log_to_console()
    # A terminated conversion has to clean up after itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if not args.moved:
            check_destination(Path(args.out).absolute(), args.overwrite)
        local_folder(args.source)
        return _mend(args) if args.moved else _convert(args)
    except (ValueError, OSError) as error:
        print(f"pirl-convert: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pirl-convert: interrupted; nothing was written", file=sys.stderr)
        return 130


def _mend(args: argparse.Namespace) -> int:
    from bridge.weights.moved import mend

    for folder in mend(args.source):
        print(f"{folder} names its own tokenizer")
    return 0


def _convert(args: argparse.Namespace) -> int:
    import jax

    from bridge.weights.consumers import consumer_of
    from bridge.weights.convert import convert
    from pirl_jax.trees import leaves

    jax.config.update("jax_platforms", "cpu")  # a conversion computes nothing: leave the GPU's memory alone
    to, params = convert(
        args.source,
        args.out,
        to=args.to,
        overwrite=args.overwrite,
        revision=args.revision,
        step=args.step,
        base=args.base,
        consumer=args.consumer,
    )
    arrays = [array for _, array in leaves(params)]
    whom = consumer_of(Path(args.out)) if to == "lerobot" else None
    print(
        f"{args.out} ({to if whom is None else f'{to}, for {whom}'}): {len(arrays)} tensors, "
        f"{sum(a.size for a in arrays):,} parameters, {sum(a.nbytes for a in arrays) / 1e6:,.1f} MB"
    )
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("convert", prog="pirl-convert", description=_MORE)
    parser.add_argument(
        "source",
        metavar="SRC",
        help="checkpoint folder (LeRobot or Orbax) or hub id (org/name); with --step a run's output_dir",
    )
    parser.add_argument("out", metavar="DST", nargs="?", help="folder to write")
    parser.add_argument(
        "--to", choices=FORMATS, help="default: orbax from LeRobot, lerobot from Orbax, with --for and --step"
    )
    parser.add_argument(
        "--for",
        dest="consumer",
        choices=CONSUMERS,
        help="whose processors: of lerobot-train, where they prepare images; or of lerobot-eval and "
        "pirl-eval, where LIBERO's own do; default: as SRC",
    )
    parser.add_argument("--step", type=int, help="the run's checkpoint to write the policy of")
    parser.add_argument("--base", help="with --step: what the run began with, if it has been moved")
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it is a checkpoint")
    parser.add_argument("--revision", help="hub branch, tag or commit")
    parser.add_argument(
        "--moved",
        action="store_true",
        help="instead: SRC, a checkpoint or a run's output_dir, has been moved or copied to where it is; "
        "make it name its tokenizer there",
    )
    args = parser.parse_args(argv)
    if args.base is not None and args.step is None:
        parser.error("--base belongs to --step.")
    if args.moved != (args.out is None):
        parser.error("--moved changes SRC itself: no DST." if args.moved else "DST is missing.")
    return args


if __name__ == "__main__":
    sys.exit(main())
