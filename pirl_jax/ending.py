"""How a command ends: finished, stopped by a signal, or failed; its exit status and last line tell which."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from pirl_jax.run_folder.layout import CHECKPOINTS, LAST, TRAIN_CONFIG, last_policy, read_step

logger = logging.getLogger(__name__)


class Stop(threading.Event):
    """Set by the first SIGINT (Ctrl-C) or SIGTERM; the second ends the process at once.

    Nothing is damaged by that: files appear complete or not at all.

    Args:
        what: What is done before the process ends, for people.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self.signal: signal.Signals | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = signal.Signals(number)
        self.set()
        # Not by `logging`, whose locks the interrupted thread may hold.
        os.write(sys.stderr.fileno(), f"{self.signal.name}: {self._what}; once more ends at once\n".encode())


def end(stop: Stop, output_dir: Path, done: int, total: int, module: str) -> None:
    """Say how a run has ended, as its last line.

    Args:
        stop: Of the run.
        output_dir: The run's folder.
        done: Steps or updates that are done.
        total: Of the whole run.
        module: What ``python -m`` resumes it with.

    Raises:
        SystemExit: It was stopped: 128 and the signal's number.
    """
    last = output_dir / CHECKPOINTS / LAST
    saved = read_step(last) if last.exists() else None
    if stop.signal is None or done >= total:
        where = last if saved is not None else "nothing was saved, as save_checkpoint=false says"
        logger.info("finished: %d of %d, %s", done, total, where)
        return
    if saved is None:
        logger.info(
            "stopped by %s after %d of %d, before anything was saved. The same command starts it anew.",
            stop.signal.name,
            done,
            total,
        )
    else:
        logger.info(
            "stopped by %s after %d of %d; %d are saved. To go on: %s",
            stop.signal.name,
            done,
            total,
            saved,
            shlex.join(resume_command(output_dir, module)),
        )
    sys.exit(128 + stop.signal)


def resume_command(output_dir: Path, module: str) -> list[str]:
    """Return the command line that goes on from a run's last checkpoint."""
    config = last_policy(output_dir) / TRAIN_CONFIG
    return ["python", "-m", module, f"--config_path={config}", "--resume=true"]
