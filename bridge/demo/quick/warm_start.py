"""``python -m bridge.demo.quick.warm_start``: makes the clone anew that the quick demo begins with.

Demonstrations of a cautious expert, which moves at half the speed that the arm could, are cloned to the end
of the schedule. The clone picks the cube up, and takes longer for it than the quick demo's episodes last.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

POLICY = Path(__file__).with_name("policy")
"""The clone, a LeRobot policy folder with a manifest, which is committed and lies in the wheel."""
SIZE_LIMIT = 5_000_000
"""Bytes of the clone, all files together."""
NOWHERE = "/nowhere/tokenizer"
"""What the clone calls its tokenizer, so that ours look beside its weights (``bridge.plugin.tokenizer``)."""

_SPEED, _DEMONSTRATIONS, _SEED = 0.5, 250, 0
_FIRST_SEED = 1_900_000  # among the demonstrations' (`record.TRAIN_SEEDS`), and none of the demo's
_CARRIED = ("model.safetensors", "config.json", "policy_preprocessor.json", "policy_postprocessor.json")


def size(folder: Path) -> int:
    """Return the bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def make(work: Path) -> Path:
    """Record and clone below ``work``; return the clone's folder.

    Raises:
        RuntimeError: The expert failed too often, or the cloning did; says which.
        ValueError: ``work`` exists, or the clone is too large to be committed.
    """
    from bridge.datasets.tokenizer import build_tokenizer
    from bridge.demo.phases import clone
    from bridge.demo.record import record
    from bridge.plugin.panda import INSTRUCTION
    from pirl_jax.run_folder.layout import last_policy

    if work.exists():
        raise ValueError(f"{work} already exists. Remove it, or give another --output_dir.")
    build_tokenizer(work / "tokenizer", [INSTRUCTION])
    record(work / "dataset", episodes=_DEMONSTRATIONS, first_seed=_FIRST_SEED, speed=_SPEED)
    clone(work, _SEED)
    return pack(last_policy(work / "sft"), work / "policy")


def pack(export: Path, folder: Path) -> Path:
    """Write what of an export is committed to a new folder, without where it was made; return the folder.

    Raises:
        ValueError: It is too large to be committed.
    """
    from bridge.weights.beside import name_tokenizer
    from pirl_jax.run_folder.manifest import seal

    folder.mkdir()
    for name in _CARRIED:
        shutil.copyfile(export / name, folder / name)
    shutil.copytree(export / "tokenizer", folder / "tokenizer")
    name_tokenizer(folder, NOWHERE)
    seal(folder)
    if (found := size(folder)) > SIZE_LIMIT:
        raise ValueError(f"the clone has {found:,} bytes; {SIZE_LIMIT:,} are what the repository takes.")
    return folder


def main() -> None:
    """Run the command line: make the clone, and put it into the place of the one that is there."""
    parser = argparse.ArgumentParser(
        prog="python -m bridge.demo.quick.warm_start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/warm_start"))
    logging.basicConfig(level=logging.INFO)
    folder = make(parser.parse_args().output_dir)
    shutil.rmtree(POLICY, ignore_errors=True)
    shutil.copytree(folder, POLICY)
    print(f"{POLICY}: {size(POLICY):,} bytes")


if __name__ == "__main__":
    main()
