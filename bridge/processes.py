"""Commands as real processes: started, watched, stopped, each with a log; none outlives who started it."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.pool import Pool
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from pirl_jax.files import tail

_BOUND = Path(__file__).with_name("bound.py")
NOTHING: Mapping[str, str] = MappingProxyType({})


class Command:
    """``python -m module --a.b=c …`` in the background; ends with the ``with`` block.

    It has a session of its own: a terminal's Ctrl-C reaches who started it alone. It is killed when the
    *thread* that started it ends, however that happens (Linux): start commands in the main thread.

    Args:
        module: what ``python -m`` runs.
        arguments: its command line.
        log: file for its output.
        threads: CPU threads its numerical libraries may use; None leaves it to them.
        environment: variables that it has besides this process's.
    """

    placed = True
    """It has a machine to run on: this one."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        log: Path,
        threads: int | None = None,
        environment: Mapping[str, str] = NOTHING,
    ) -> None:
        self._argv = ["-m", module, *arguments]
        self.log = log
        variables = {**os.environ, **environment}
        if threads is not None:
            variables |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-P", str(_BOUND), str(os.getpid()), sys.executable, *self._argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )

    def __str__(self) -> str:
        return shlex.join(["python", *self._argv])

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self.poll() is None

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def check(self, must_run: bool = False) -> None:
        """Raise if the process has failed.

        Args:
            must_run: to have ended with status 0 is a failure too; LeRobot's actor does so after errors.

        Raises:
            RuntimeError: with the last lines of its log.
        """
        if self.poll() not in ((None,) if must_run else (None, 0)):
            raise RuntimeError(
                f"{self} failed ({self._process.returncode}); {self.log} ends:\n{tail(self.log)}"
            )

    def terminate(self) -> None:
        """Ask the process to end."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, and what it has started."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self, patience: float = 20.0) -> None:
        """Ask the process to end, and insist after ``patience`` seconds."""
        self.terminate()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def pool(workers: int) -> Pool:
    """Return new processes that work for this one; a terminal's Ctrl-C is for this one alone.

    Spawned: locks of this process's threads, and OpenGL, do not survive a fork.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which they inherit, before they import anything
    try:
        return multiprocessing.get_context("spawn").Pool(workers)
    finally:
        signal.signal(signal.SIGINT, before)


def free_port() -> int:
    """Return a TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
