"""A process on the node that Ray has chosen for it: started there, its log read, its end told."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bridge.processes import Command

MOST = 1 << 20
"""Bytes of a log in one answer."""


class Host:
    """Runs one command; an actor in Ray's sense of the word, whose end is the command's.

    Ray calls its methods in its process's main thread, with which the command dies (``Command``).
    """

    _command: Command
    _log: int

    def start(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], folder: str
    ) -> None:
        """Start ``python -m module``, in the folder in which the launch was started.

        Args:
            module: What is run.
            arguments: Its command line.
            environment: Variables that it has besides the node's.
            folder: Its working directory.

        Raises:
            OSError: It cannot be started here; says why.
        """
        try:
            os.chdir(folder)
        except OSError as error:
            raise OSError(
                f"node {os.uname().nodename} has no folder {folder} ({error.strerror}), in which pirl-launch "
                "was started. Make it there, with the files that the command line names."
            ) from error
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]  # by Ray: the first draws as well
        draws = {"MUJOCO_EGL_DEVICE_ID": gpu} if gpu else {}
        file, path = tempfile.mkstemp(prefix="pirl-")
        self._command = Command(module, arguments, Path(path), environment={**draws, **environment})
        os.unlink(path)  # read by its descriptor, and gone with this process however that ends
        self._log = file

    def news(self, offset: int) -> tuple[bytes, int | None]:
        """Return the log from an offset on, at most ``MOST`` bytes, and the status that it has ended with."""
        status = self._command.poll()  # before the log is read: whatever it has written is in it
        return os.pread(self._log, MOST, offset), status

    def terminate(self) -> None:
        """Ask it to end."""
        self._command.terminate()

    def kill(self, offset: int) -> bytes:
        """End it, and what it has started; return the log from an offset on, at most ``MOST`` bytes."""
        self._command.kill()
        return self.news(offset)[0]
