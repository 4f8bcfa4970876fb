"""How much of it, and what came of it; the end-to-end tests' helpers are used here too."""

import json
import shlex
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "e2e")]


def pytest_addoption(parser):
    group = parser.getgroup("chaos")
    group.addoption("--rounds", type=int, default=5, help="of trouble on a launch")
    group.addoption("--served", action="store_true", help="actors have their chunks chosen by policy servers")
    group.addoption("--hang_after_s", type=float, default=10.0, help="more where other work is beside it")
    group.addoption("--crash_points", type=int, default=50, help="of saving a checkpoint")
    group.addoption("--result", type=Path, help="a JSON of what came of it")


def pytest_generate_tests(metafunc):
    if "point" in metafunc.fixturenames:
        metafunc.parametrize("point", range(metafunc.config.getoption("crash_points")))


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if (file := config.getoption("result")) is None:
        return
    stats = terminalreporter.stats
    reports = [*stats.get("passed", ()), *stats.get("failed", ())]
    result = {
        "command": shlex.join(["python", "-m", "pytest", *config.invocation_params.args]),
        **{kind: len(stats.get(kind, ())) for kind in ("passed", "failed", "error")},
        "seconds": round(sum(report.duration for report in reports)),
        **{name: value for report in reports for name, value in report.user_properties},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n")
