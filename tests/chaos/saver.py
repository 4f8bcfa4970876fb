"""Saves two checkpoints over each other, and dies at one of the steps by which files come and go.

python -m saver OUTPUT_DIR STEP: of the save of step 2 (and its tidying up), the process is gone before its
STEP-th change of a file's name or flush. 0: it counts them, and prints the count.
"""

import itertools
import os
import sys
from pathlib import Path

import numpy as np

from pirl_jax.run_folder.retention import Retention
from pirl_jax.training.checkpoint import CheckpointWriter

WATCHED = ("replace", "rename", "fsync", "symlink", "unlink", "rmdir", "mkdir")


def state(n):
    """What is saved as step n."""
    return {"n": n, "w": np.full(1000, float(n))}


def export(folder, saved):
    """As a policy's, of the same numbers."""
    (folder / "config.json").write_text("{}")
    (folder / "train_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(np.asarray(saved["w"]).tobytes())


def main(output_dir: Path, fatal: int) -> None:
    """Save, and die."""
    with CheckpointWriter(output_dir, 10, Retention(keep_last=2)) as writer:
        for step in (1, 2, 3):  # the third removes the first
            writer.save(step, state(step), export, {"score": step / 10})
        writer.wait()
        numbers = itertools.count(1)

        def watched(original):
            def call(*arguments, **options):
                if next(numbers) == fatal:
                    os._exit(9)
                return original(*arguments, **options)

            return call

        for name in WATCHED:
            setattr(os, name, watched(getattr(os, name)))
        for step in (3, 4):  # one takes another's place, one removes another
            writer.save(step, state(10 + step), export, {"score": step / 10})
            writer.add(step, {"pc_success": 10.0 * step})
        writer.wait()
    print(next(numbers) - 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
