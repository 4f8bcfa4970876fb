"""The GPU benchmark's way, taken on a CPU: that it runs from end to end and writes what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_the_script_runs_by_itself_and_writes_every_figure(tmp_path):
    # Without the checkout on the path and from elsewhere: it has to find what it needs.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(
        [
            sys.executable,
            BENCHMARKS / "bench_gpu.py",
            "--size=tiny",
            "--rounds=1",
            f"--output_dir={tmp_path}",
        ],
        check=True,
        cwd=tmp_path,
        env={**environment, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""},
        timeout=1500,
    )
    found = json.loads((tmp_path / "bench_gpu.json").read_text())
    assert [row["what"] for row in found["speeds"]] == ["update", "sampling", "encoder", "encoder"]
    assert all(row["÷ eager"] > 0 and row["of ceiling (%)"] > 0 for row in found["speeds"])
    assert found["memory"]["planned"] > 0
    assert [row["precision"] for row in found["precisions"]] == ["highest"]
    assert found["precisions"][0]["gap (nats)"] < 0.01
    assert "samples/s" in (tmp_path / "bench_gpu.md").read_text()
