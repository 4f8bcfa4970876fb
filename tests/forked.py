"""Commands as processes that need not import torch, LeRobot and JAX again.

``python -m pirl_jax.learner`` and the stock actor spend eight seconds of CPU on imports, which is most of an
end-to-end test's time. Here one process a test worker imports them and then forks itself for every command:
a process of its own, with its own command line, environment and log, that runs the module as ``__main__``.
Where starting is what a test is about, a command is started by ``python -m`` instead: ``test_actor`` does so
with the actor, ``test_doctor`` with the doctor, whose module imports the learner's and which starts its actor
by itself.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from functools import cache
from pathlib import Path
from typing import Any, Self

PRELOADED = (
    "lerobot.rl.gym_manipulator",
    "lerobot.rl.learner_service",
    "lerobot.rl.train_rl",
    "lerobot.policies.xvla.modeling_xvla",
    "bridge.plugin",
    "bridge.weights.export",
    "bridge.settings.learner_config",
    "bridge.wire.server",
    "pirl_jax.training.parts",
    "pirl_jax.training.checkpoint",
    "pirl_jax.xvla.policy",
)
"""Not the commands themselves, nor the plugin's submodules: what they do when they are loaded is theirs."""


class Command:
    """``python -m module arguments`` in a fork; what is used of ``subprocess.Popen``. A context kills it."""

    placed = True

    def __init__(self, module: str, arguments: list[str], log: Path, **environment: str) -> None:
        log.touch()  # to be read at once
        request = {"module": module, "arguments": arguments, "log": str(log), "environment": environment}
        self.pid: int = _ask(start=request)
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.wait()

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = _ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        """Wait for the exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.05)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal to a process that runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


@cache
def _parent() -> subprocess.Popen[str]:
    """The process that is forked, one a test worker."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    # A learner compiles a hundred small programs on its way, the same as the learner before it.
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    atexit.register(process.kill)
    return process


def _ask(**question: Any) -> Any:
    parent = _parent()
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(json.dumps(question) + "\n")
    parent.stdin.flush()
    return json.loads(parent.stdout.readline())


def _serve() -> None:
    """Answer questions until the test worker is gone."""
    for module in PRELOADED:
        __import__(module)
    assert threading.active_count() == 1, (
        threading.enumerate()
    )  # a fork copies the thread that calls it alone
    gc.collect()
    gc.freeze()  # as in conftest: no fork's collector looks at what has been imported here
    for line in sys.stdin:
        question = json.loads(line)
        answer = _start(**question["start"]) if "start" in question else _status(question["poll"])
        print(json.dumps(answer), flush=True)


def _status(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _start(module: str, arguments: list[str], log: str, environment: dict[str, str]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of forks; it has started nothing yet
        pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.update(environment)
        sys.argv = [module, *arguments]
        status = _run(module)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(module: str) -> int:
    """Run a module and end as the interpreter does: wait for threads, call what ``atexit`` knows."""
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    return status


if __name__ == "__main__":
    _serve()
