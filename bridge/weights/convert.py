"""``pirl-convert``: an X-VLA checkpoint folder in the other format."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from bridge.weights.consumers import CONSUMERS, Consumer, consumer_of
from bridge.weights.folder import FORMATS, check_destination, format_of, load_params, resolve, save_params
from bridge.weights.moved import mend
from bridge.weights.saved import saved_params
from bridge.weights.state_dict import Progress, Tree
from pirl_jax.run_folder.layout import PRETRAINED_MODEL, checkpoint_of
from pirl_jax.run_folder.manifest import check as check_whole
from pirl_jax.trees import leaves


def convert(
    source: Path | str,
    out: Path | str,
    to: str | None = None,
    overwrite: bool = False,
    revision: str | None = None,
    progress: Progress | None = None,
    step: int | None = None,
    base: Path | str | None = None,
    consumer: Consumer | None = None,
) -> tuple[str, Tree]:
    """Convert a checkpoint.

    Args:
        source: As for :func:`load_params`; with ``step``, a run's output folder.
        out: The new folder.
        to: A format; None means the one that ``source`` is not, or LeRobot's for a ``consumer``.
        overwrite: Replace ``out`` if it is a checkpoint.
        revision: Hub revision.
        progress: Told after each tensor read.
        step: Of the run's checkpoint whose policy is wanted, which may hold only what had changed by then.
        base: What the run began with, if it is no longer where it was.
        consumer: Whom of LeRobot's the processors are to be for; None: as those of ``source``.

    Returns:
        The format written and the parameter tree.

    Raises:
        ValueError: Something is wrong with ``source``, ``base`` or ``out``; nothing was written.
    """
    out = Path(out).absolute()
    check_destination(out, overwrite)
    if step is not None:
        checkpoint = checkpoint_of(source, step)
        check_whole(checkpoint)
        params = saved_params(checkpoint, base, progress)
        to = to or "lerobot"
        save_params(params, checkpoint / PRETRAINED_MODEL, out, to, overwrite, consumer)
        return to, params
    folder = resolve(source, revision)
    to = to or ("orbax" if format_of(folder) == "lerobot" and consumer is None else "lerobot")
    _, params = load_params(folder, progress=progress)
    save_params(params, folder, out, to, overwrite, consumer)
    return to, params


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``pirl-convert``; return its exit status."""
    args = _arguments(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports through it
    jax.config.update("jax_platforms", "cpu")  # a conversion computes nothing: leave the GPU's memory alone
    # A terminated conversion has to clean up after itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    progress = _show_progress if sys.stderr.isatty() else None
    try:
        if args.moved:
            for folder in mend(args.source):
                print(f"{folder} names its own tokenizer")
            return 0
        to, params = convert(
            args.source,
            args.out,
            to=args.to,
            overwrite=args.overwrite,
            revision=args.revision,
            progress=progress,
            step=args.step,
            base=args.base,
            consumer=args.consumer,
        )
    except (ValueError, OSError) as error:
        print(f"pirl-convert: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pirl-convert: interrupted; nothing was written", file=sys.stderr)
        return 130
    arrays = [array for _, array in leaves(params)]
    whom = consumer_of(Path(args.out)) if to == "lerobot" else None
    print(
        f"{args.out} ({to if whom is None else f'{to}, for {whom}'}): {len(arrays)} tensors, "
        f"{sum(a.size for a in arrays):,} parameters, {sum(a.nbytes for a in arrays) / 1e6:,.1f} MB"
    )
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="pirl-convert",
        description="Convert an X-VLA checkpoint from LeRobot to Orbax, or back; or make it one for "
        "lerobot-train or lerobot-eval; or write the policy of any checkpoint of a run.",
        epilog="Every tensor is checked by name, shape and value; on any failure nothing is written.",
    )
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


def _show_progress(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rreading tensor {done}/{total}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
