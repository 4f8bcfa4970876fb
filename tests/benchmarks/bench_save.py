"""How long a checkpoint takes to be whole on the disk, beside what the disk takes for as many bytes.

python tests/benchmarks/bench_save.py [GIB] [--rounds N]

GIB is the head's size, 1.15 of the published policy: a checkpoint holds it four times (parameters, two
moments, the export), and the export an encoder of twice the size. Alternately: the checkpoint, and as many
zeros by ``dd``.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from pirl_jax.run_folder.retention import Retention
from pirl_jax.training.checkpoint import CheckpointWriter

MIB = 2**20


def main() -> None:
    """Measure, and print a line a round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gib", nargs="?", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    pieces = max(1, round(options.gib * 16))
    state = {
        name: [rng.normal(size=16 * MIB).astype(np.float32) for _ in range(pieces)]
        for name in ("params", "first", "second")
    }
    encoder = {
        f"encoder.{i}": torch.from_numpy(array) for i, array in enumerate(state["first"] + state["second"])
    }

    def export(folder: Path, state: dict) -> None:
        head = {f"head.{i}": torch.from_numpy(array) for i, array in enumerate(state["params"])}
        save_file({**encoder, **head}, folder / "model.safetensors")

    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            began, used = time.monotonic(), time.process_time()
            with CheckpointWriter(folder, 1, Retention()) as writer:
                writer.save(1, state, export)
            seconds, cpu = time.monotonic() - began, time.process_time() - used
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        with tempfile.NamedTemporaryFile() as file:
            began = time.monotonic()
            zeros = ["dd", "if=/dev/zero", f"of={file.name}", "bs=1M", f"count={size // MIB}", "conv=fsync"]
            subprocess.run(zeros, check=True, capture_output=True)
            disk = time.monotonic() - began
        print(
            f"{size / 1e9:.2f} GB: whole after {seconds:.1f} s ({cpu:.1f} CPU s); the disk alone {disk:.1f} s"
        )


if __name__ == "__main__":
    main()
