"""An X-VLA checkpoint folder in the other format."""

from __future__ import annotations

from pathlib import Path

from bridge.weights.folder import format_of, load_params, resolve, save_params
from bridge.weights.formats import Consumer, check_destination
from bridge.weights.saved import saved_params
from bridge.weights.state_dict import Tree
from pirl_jax.console.progress import working
from pirl_jax.run_folder.layout import PRETRAINED_MODEL, checkpoint_of
from pirl_jax.run_folder.manifest import check as check_whole


def convert(
    source: Path | str,
    out: Path | str,
    to: str | None = None,
    overwrite: bool = False,
    revision: str | None = None,
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
        params = saved_params(checkpoint, base)
        to = to or "lerobot"
        with working(f"writing {out}"):
            save_params(params, checkpoint / PRETRAINED_MODEL, out, to, overwrite, consumer)
        return to, params
    folder = resolve(source, revision)
    to = to or ("orbax" if format_of(folder) == "lerobot" and consumer is None else "lerobot")
    _, params = load_params(folder)
    with working(f"writing {out}"):
        save_params(params, folder, out, to, overwrite, consumer)
    return to, params
