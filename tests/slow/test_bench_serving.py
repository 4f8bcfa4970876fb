"""The benchmark of the policy server runs, and finds batches and less work than the stock policy's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).resolve().parents[1] / "benchmarks" / "bench_serving.py"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["supply", "small", "--batches", "1", "2", "--rounds", "1"],
            r"served, 2 at a time +[\d.]+ chunks a CPU",
        ),
        (["waiting", "small", "--rounds", "1"], r"mean batch of 4 waiting actors [34]"),
    ],
)
def test_the_script_runs_by_itself(arguments, words):
    command = [sys.executable, str(BENCH), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    assert re.search(words, done.stdout)
