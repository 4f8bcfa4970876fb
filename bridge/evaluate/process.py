"""``lerobot-eval`` as a child process whose progress can be read."""

from __future__ import annotations

import codecs
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

_MODULE = "lerobot.scripts.lerobot_eval"
_BAR = re.compile(r"(Running rollout with|Stepping through eval batches)[^\r\n\]]*\]")
_ROLLOUTS = re.compile(
    r"Stepping through eval batches:[^\r\n\]]*?(\d+)/\d+ \[(?:[^\r\n\]]*?running_success_rate=([\d.]+)%)?"
)
_BREAK = re.compile(r"[\r\n]+|\x1b\[A")
_PATIENCE = 10.0  # seconds between asking and insisting


class LerobotEval:
    """``python -m lerobot.scripts.lerobot_eval`` in a session of its own, so that Ctrl-C is ours to pass on.

    Its output comes through a pipe: if this process is killed, the child fails at its next line instead of
    going on unseen.

    Args:
        arguments: Its command line.
        log: File for its output, without the progress bars.
    """

    def __init__(self, arguments: Sequence[str], log: Path):
        self.command = ["python", "-m", _MODULE, *arguments]
        self.log = log
        self.rollouts = 0
        """Batches of episodes it has finished."""
        self.won = 0.0
        """How many of them were successful, as it says itself: a share of a batch counts as that."""
        self._bar, self._bar_won = 0, 0.0
        self._process = subprocess.Popen(
            [sys.executable, *self.command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """Return the exit status once the process has ended and its output is in the log."""
        status = self._process.poll()
        if status is not None:
            self._reader.join(_PATIENCE)
        return status

    def stop(self) -> None:
        """End the process and its environments."""
        for ending in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, ending)
            except ProcessLookupError:
                break
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()
        self._reader.join(_PATIENCE)

    def _read(self) -> None:
        assert self._process.stdout is not None
        decoder, rest = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
        with self.log.open("w", encoding="utf-8") as log:
            while chunk := os.read(self._process.stdout.fileno(), 65536):
                *lines, rest = _BREAK.split(rest + decoder.decode(chunk))
                for line in lines:
                    self._line(line, log)
                log.flush()
            self._line(rest, log)

    def _line(self, line: str, log: TextIO) -> None:
        for done, rate in _ROLLOUTS.findall(line):
            before, self._bar = self._bar, int(done)
            # A bar that starts again belongs to the next task.
            self.rollouts += self._bar - before if self._bar >= before else self._bar
            if self._bar < before:
                self._bar_won = 0.0
            # The rate that a bar has shown for a while may be ahead of its number.
            if self._bar > before and rate:
                won = self._bar * float(rate) / 100
                self.won, self._bar_won = self.won + won - self._bar_won, won
        if text := _BAR.sub("", line).strip():
            log.write(text + "\n")
