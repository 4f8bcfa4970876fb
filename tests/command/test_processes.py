"""Commands that run beside another: what they end with is not overlooked."""

import time

import pytest

from bridge.processes import Command


def test_a_command_that_must_run_may_not_end_well_either(tmp_path):
    """LeRobot's actor ends with 0 when its environment has raised."""
    with Command("platform", [], tmp_path / "log") as command:
        while command.running:
            time.sleep(0.01)
        command.check()
        with pytest.raises(RuntimeError, match=r"python -m platform failed \(0\); .*log ends:\n.*Linux"):
            command.check(must_run=True)
