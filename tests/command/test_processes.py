"""Commands that run beside another: what they end with is not overlooked."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bridge import processes
from bridge.processes import Command


def test_a_command_that_must_run_may_not_end_well_either(tmp_path):
    """LeRobot's actor ends with 0 when its environment has raised."""
    with Command("platform", [], tmp_path / "log") as command:
        while command.running:
            time.sleep(0.01)
        command.check()
        with pytest.raises(RuntimeError, match=r"python -m platform failed \(0\); .*log ends:\n.*Linux"):
            command.check(must_run=True)


PARENT = """
import sys, time
from pathlib import Path
from bridge.processes import Command
child = Command("http.server", ["0"], Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_command_does_not_outlive_who_started_it_however_that_ended(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    child = psutil.Process(pid)
    deadline = time.monotonic() + 20
    while "http.server" not in child.cmdline()[1:3]:  # until then it is on its way
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert os.getsid(pid) == pid  # a terminal's Ctrl-C is not for it
    parent.kill()
    parent.wait()
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_command_whose_parent_was_gone_before_it_began_does_not_begin(tmp_path):
    bound = Path(processes.__file__).with_name("bound.py")
    command = [sys.executable, str(bound), "1", sys.executable, "-c", "print('it runs')"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is gone" in done.stderr
