"""How a command ends: finished, stopped by a signal, or failed; its exit status and last line tell which."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import NoReturn

from pirl_jax.run_folder.layout import CHECKPOINTS, LAST, TRACEBACK, TRAIN_CONFIG, last_policy, read_step

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_INSISTS_EVERY_S = 2.0


class Stop(threading.Event):
    """Set by the first SIGINT (Ctrl-C) or SIGTERM; the second ends the process at once.

    Nothing is damaged by that: files appear complete or not at all. Signals are heard on a thread: Python's
    own handlers run once the main thread comes back from what it computes, which may take minutes.

    Args:
        what: What is done before the process ends, for people.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self.signal: signal.Signals | None = None
        self._heard, told = socket.socketpair()
        told.setblocking(False)
        self._told = told  # closed, it could not be written to
        for number in SIGNALS:
            signal.signal(number, _leave_to_thread)
        signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_hear_nothing)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def _listen(self) -> None:
        while True:
            number = self._heard.recv(1)[0]
            if number in SIGNALS:
                self._on_signal(signal.Signals(number))

    def _on_signal(self, number: signal.Signals) -> None:
        if self.is_set():
            os._exit(128 + number)
        self.signal = number
        self.set()
        os.write(sys.stderr.fileno(), f"{number.name}: {self._what}; once more ends at once\n".encode())


def _leave_to_thread(number: int, frame: FrameType | None) -> None:
    """Take the place of the default, which ends the process: a wakeup file wants a handler."""


def _hear_nothing() -> None:
    """In a forked child: a terminal's Ctrl-C is its parent's, too, which would count it twice."""
    if signal.getsignal(signal.SIGINT) is _leave_to_thread:
        signal.set_wakeup_fd(-1)


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
            "asked to stop (%s) after %d of %d, before anything was saved. The same command starts it anew.",
            stop.signal.name,
            done,
            total,
        )
    else:
        logger.info(
            "asked to stop (%s) after %d of %d; %d are saved. To go on: %s",
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


def end_quickly() -> None:
    """Have Python end without looking through all that there is for what may go, which takes it seconds.

    The memory goes with the process. Whatever is to be done at its end (``atexit``) is done before.
    """
    atexit.register(gc.freeze)


def end_on_signal(what: str) -> None:
    """Have SIGINT (Ctrl-C) or SIGTERM end the process with one line, once its ``with`` blocks are left.

    The second ends it at once.

    Args:
        what: What becomes of what was done, for people; follows the signal's name.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        # Not by `sys.stderr`, which may be held back.
        os.write(2, f"stopped by {signal.Signals(number).name}{what}\n".encode())
        _insist(128 + number, _outermost(frame))
        sys.exit(128 + number)

    for number in SIGNALS:
        signal.signal(number, on_signal)


def _insist(status: int, program: CodeType | None) -> None:
    """Ask the process to end again and again, while it runs as if it had not been asked.

    What a signal's handler raises is lost where nobody takes it: in ``__del__``, in a callback of the garbage
    collector, in a library that catches everything.

    Args:
        status: to end with.
        program: what has been asked. After it Python waits for threads, and is left alone.
    """

    def again(_: int, frame: FrameType | None) -> None:
        error = sys.exception()
        # A block that is left handles the exit itself, or the end of the generator that it is in.
        while error is not None and not isinstance(error, (SystemExit, GeneratorExit)):
            error = error.__context__
        if error is None and _outermost(frame) is program:
            sys.exit(status)

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _INSISTS_EVERY_S, _INSISTS_EVERY_S)
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)


def _outermost(frame: FrameType | None) -> CodeType | None:
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame and frame.f_code


@contextmanager
def first_is_noted() -> Iterator[list[int]]:
    """Note the first signal in the list that it yields; the second does what the first did before."""
    noted: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        noted.append(number)
        give_back()

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        give_back()


@contextmanager
def in_one_line(folder: Path | None, foreseen: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Within it an error that nobody has foreseen ends the process as :func:`fail` does.

    Args:
        folder: See there.
        foreseen: What the caller has words for.
    """
    try:
        yield
    except foreseen:
        raise
    except Exception as error:
        fail(error, folder)


def fail(error: Exception, folder: Path | None) -> NoReturn:
    """End the process after an error that nobody has foreseen: one line, and the traceback in a file.

    Args:
        error: What was raised.
        folder: Where the file goes; None: there is none.

    Raises:
        SystemExit: 1, with the line.
        Exception: The error itself where no file can be written: Python prints it.
    """
    file = None if folder is None else write_traceback(error, folder)
    if file is None:
        raise error
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "no words")
    sys.exit(f"error: {type(error).__name__}: {said} (not foreseen; the traceback is in {file})")


def write_traceback(error: BaseException, folder: Path) -> Path | None:
    """Add an error's traceback to a folder's file of them; None if it cannot be written."""
    file = folder / TRACEBACK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(sys.argv)}\n")
            log.writelines([*traceback.format_exception(error), "\n"])
    except OSError:
        return None
    return file
