"""A run of a tiny policy, whose learner is a process and whose actors are threads of another."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "e2e")]

from pirl_jax.files import tail  # noqa: E402

PATIENCE_S = 900.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Played:
    """Learner and actors of a run; a context ends both.

    Args:
        folder: Of the run; one that is there is gone on with, from its last checkpoint.
        actors: How many play.
        updates: Of the run.
        save_freq: Updates from checkpoint to checkpoint.
        core: That the learner is pinned to, the actors to the others; None: neither is.
        algorithm: Sections of the recipe.
    """

    def __init__(
        self,
        folder: Path,
        actors: int,
        updates: int,
        save_freq: int = 10**6,
        core: int | None = None,
        **algorithm: Any,
    ) -> None:
        from test_learner import free_port, write_config

        self.folder, self._core = folder, core
        self._last = folder / "output/checkpoints/last/pretrained_model/train_config.json"
        config = folder / "run.json"
        if not self._last.exists():
            config = write_config(folder, free_port(), algorithm=algorithm)
        self._first = f"--config_path={config}"
        self._flags = (f"--steps={updates}", f"--save_freq={save_freq}")
        self._log_file = folder / "log"
        self._log = self._log_file.open("ab")
        self.resume()
        command = [sys.executable, __file__, f"--config={config}", f"--actors={actors}"]
        self.actors = self._start(command, OMP_NUM_THREADS="1")
        if core is not None:
            os.sched_setaffinity(self.actors.pid, os.sched_getaffinity(0) - {core})

    def resume(self) -> None:
        """Start the next learner, from the last checkpoint if there is one."""
        arguments = [self._first]
        if self._last.exists():
            arguments = [f"--config_path={self._last}", "--resume=true"]
        command = [sys.executable, "-m", "pirl_jax.learner", *arguments, *self._flags]
        self.learner = self._start(command, JAX_PLATFORMS="cpu")
        if self._core is not None:
            os.sched_setaffinity(self.learner.pid, {self._core})  # before it has any threads

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition.

        Raises:
            RuntimeError: It has not come true in a quarter of an hour, or somebody has ended in between.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            ended = self.actors.poll() is not None or self.learner.poll() is not None
            if (ended and not condition()) or time.monotonic() > deadline:
                raise RuntimeError(f"nothing moves any more; {self._log_file} ends:\n{tail(self._log_file)}")
            time.sleep(0.1)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row an update."""
        file = self.folder / "output/metrics.jsonl"
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def close(self) -> None:
        """End both processes."""
        for process in (self.learner, self.actors):
            process.kill()
            process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(TESTS.parent), os.environ.get("PYTHONPATH")]))
        variables = os.environ | {"PYTHONPATH": path} | environment
        bound = [
            sys.executable,
            str(TESTS.parent / "bridge/bound.py"),
            str(os.getpid()),
        ]  # ends when this ends
        return subprocess.Popen([*bound, *command], stdout=self._log, stderr=subprocess.STDOUT, env=variables)


def rss_mb(pid: int) -> float:
    """Return what a process holds in memory, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _play(config: Path, count: int) -> None:
    """Be the actors, until killed; one that gives its learner up ends the process."""
    from fake_actor import FakeActor

    def play(actor: FakeActor) -> None:
        try:
            actor.episodes(10**9)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    threads = [threading.Thread(target=play, args=(FakeActor(config, PATIENCE_S),)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--actors", type=int, required=True)
    options = parser.parse_args()
    _play(options.config, options.actors)
