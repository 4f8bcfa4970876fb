"""Become another command that dies with the process which started it: ``python bound.py PARENT COMMAND …``.

Run by its path. Not a ``preexec_fn``, which may deadlock where threads run, gRPC's among them. What
``prctl`` asks for outlives ``execv``. Standard library only: this comes before every child's own start.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for SIGKILL at the parent's death, and go on as the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":  # elsewhere there is no such thing
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has died before
        sys.exit("the process that started this one is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
