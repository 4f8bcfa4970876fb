"""Trackers: who is told every row of metrics beside ``metrics.jsonl``. TensorBoard always, W&B if wanted."""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pirl_jax.training.metrics import Sink

logger = logging.getLogger(__name__)

EVENTS = "tensorboard"
"""Folder of event files in a run's."""
_PREFIX = "events.out.tfevents."


def trackers(cfg: Any, folder: Path, done: int) -> tuple[Sink, ...]:
    """Return the trackers of a run, to be told its rows under LeRobot's names.

    Args:
        cfg: LeRobot's training config, of which ``wandb`` says whether there is more than TensorBoard.
        folder: The run's.
        done: Updates, or steps, up to which its rows are kept; 0: it begins.

    Raises:
        ValueError: W&B is enabled but not installed.
    """
    return (TensorBoard(folder / EVENTS, done), *wandb_sinks(cfg.wandb, cfg.to_dict(), folder))


class TensorBoard:
    """Writes a row as one record of an event file: at once, and without a flush to the disk.

    A file is made with the first row, and one more each time that a run goes on: it begins by telling
    TensorBoard to forget what was written after the checkpoint, so that all of them are one series.
    tensorboardX's own writers flush to the disk, or hand events to a thread that they wait for when it fails.

    Args:
        folder: Where the files go.
        done: Step up to which what is there stays.
    """

    def __init__(self, folder: Path, done: int) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # loads torch  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.record_writer import masked_crc32c

        self._folder, self._done = folder, done
        self._event, self._start, self._crc = Event, SessionLog.START, masked_crc32c
        self._file: BinaryIO | None = None
        self._failed = False

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a row; what hinders it is said once, and costs the run nothing else."""
        if self._failed:
            return
        try:
            if self._file is None:
                self._file = self._open()
            event = self._event(wall_time=time.time(), step=step)
            for name, value in metrics.items():
                event.summary.value.add(tag=name, simple_value=value)
            self._write(self._file, event)
        except OSError as error:
            self._failed = True
            logger.warning("TensorBoard is told no more: %s cannot be written to (%s)", self._folder, error)

    def _open(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        before = [path.name.removeprefix(_PREFIX).split(".")[0] for path in self._folder.glob(f"{_PREFIX}*")]
        # Files are read in the order of their names: a clock that was set back must not change it.
        second = max(int(time.time()), *(int(text) + 1 for text in before if text.isdecimal()), 0)
        name = f"{_PREFIX}{second:010}.{socket.gethostname()}.{os.getpid()}"
        file = (self._folder / name).open("ab", buffering=0)
        now = time.time()
        self._write(file, self._event(wall_time=now, file_version="brain.Event:2"))
        forget = self._event(wall_time=now, step=self._done + 1)
        forget.session_log.status = self._start
        self._write(file, forget)
        return file

    def _write(self, file: BinaryIO, event: Any) -> None:
        """Append an event as a TFRecord: length, content, and a checksum of each."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checks = (struct.pack("<I", self._crc(part)) for part in (length, data))
        file.write(length + next(checks) + data + next(checks))


def wandb_sinks(wandb_config: Any, config: Mapping[str, Any], folder: str | Path) -> tuple[Sink, ...]:
    """Return the Weights & Biases tracker that LeRobot's ``wandb`` section asks for, or none.

    Args:
        wandb_config: LeRobot's ``WandBConfig``: ``enable``, ``project``, ``entity``, ``notes``, ``run_id``,
            ``mode``.
        config: the run's settings, to be stored with it; ``job_name`` is the run's name.
        folder: where wandb keeps its files.

    Raises:
        ValueError: if wandb is enabled but not installed.
    """
    if not wandb_config.enable:
        return ()
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            "wandb is not installed. Install pirl-jax[wandb] or set wandb.enable=false."
        ) from error
    run = wandb.init(
        project=wandb_config.project,
        entity=wandb_config.entity,
        name=config.get("job_name"),
        notes=wandb_config.notes,
        id=wandb_config.run_id,
        mode=wandb_config.mode,
        resume="allow",
        config=dict(config),
        dir=str(folder),
    )
    wandb_config.run_id = run.id  # checkpoints say it, and a resumed run goes on with it
    return (lambda step, metrics: run.log(dict(metrics), step=step),)
