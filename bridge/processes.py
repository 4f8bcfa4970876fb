"""The demo's and the doctor's commands as real processes: started, watched, stopped, each with a log."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pirl_jax.files import tail


class Command:
    """``python -m module --a.b=c …`` in the background; ends with the ``with`` block.

    Args:
        module: what ``python -m`` runs.
        arguments: its command line.
        log: file for its output.
        threads: CPU threads its numerical libraries may use; None leaves it to them.
    """

    def __init__(self, module: str, arguments: Sequence[str], log: Path, threads: int | None = None) -> None:
        self._argv = ["-m", module, *arguments]
        self.log = log
        environment = dict(os.environ)
        if threads is not None:
            environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, *self._argv], stdout=out, stderr=subprocess.STDOUT, env=environment
            )

    def __str__(self) -> str:
        return shlex.join(["python", *self._argv])

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self._process.poll() is None

    def check(self, must_run: bool = False) -> None:
        """Raise if the process has failed.

        Args:
            must_run: to have ended with status 0 is a failure too; LeRobot's actor does so after errors.

        Raises:
            RuntimeError: with the last lines of its log.
        """
        if self._process.poll() not in ((None,) if must_run else (None, 0)):
            raise RuntimeError(
                f"{self} failed ({self._process.returncode}); {self.log} ends:\n{tail(self.log)}"
            )

    def stop(self, patience: float = 20.0) -> None:
        """Ask the process to end, and insist after ``patience`` seconds."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def free_port() -> int:
    """Return a TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
