"""The frozen encoder: JAX over LeRobot's torch code, in float32 and bfloat16. Run it as a script.

python tests/benchmarks/bench_encoder.py [tiny|middle|published …] [--rounds N] [--compile]

One observation from its bytes to features: two cameras and an empty third view, 50 tokens. CPU seconds on one
pinned core, medians of rounds that alternate. At published size ``--compile`` takes many minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import timing

timing.pin()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from equal_learners import SIZES, frames, networks  # noqa: E402
from torch_learner import encode as torch_encode  # noqa: E402

from pirl_jax.xvla.policy import XVLAFlowPolicy  # noqa: E402

GOALS = {"float32": 0.44, "bfloat16": 1.0}
AGREEMENT = {"float32": 1e-4, "bfloat16": 0.1}
"""Largest difference, of the features' largest magnitude."""


def measure(size: str, dtype: str, rounds: int, compile_torch: bool) -> list[str]:
    """Return the table's row of a size and dtype."""
    nets = networks(size, dtype, depth=1)  # the head, which is not needed, is as large as the encoder
    policy = XVLAFlowPolicy(nets.config)
    frozen = {"vlm": nets.params.pop("vlm")}
    nets.params.clear()
    images, tokens = frames(nets, 1)
    pixels, ids = torch.from_numpy(images), torch.from_numpy(tokens).long()
    encode = jax.jit(policy.encode)

    def theirs() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            return torch_encode(nets.model, pixels, ids)

    def ours() -> object:
        return jax.block_until_ready(encode(frozen, images, tokens))

    for mine, other in zip(encode(frozen, images, tokens), theirs(), strict=True):
        other = other.float().numpy()
        error = np.abs(np.asarray(mine, np.float32) - other).max() / np.abs(other).max()
        if error > AGREEMENT[dtype]:
            raise AssertionError(f"the encoders differ by {error:.1e} of the largest feature in {dtype}")
    fast, reason = None, "not asked for"
    if compile_torch:
        compiled = torch.compile(torch_encode)

        def run() -> object:
            with torch.no_grad():
                return compiled(nets.model, pixels, ids)

        fast, reason = timing.compiled_or_not(lambda: run)
    repeats = {"tiny": 20, "middle": 3}.get(size, 1)
    steps = {"ours": ours, "theirs": theirs, "compiled": fast}
    mine, eager, fast_s = timing.alternately(steps, rounds, repeats).values()
    ratios = timing.ratio(mine, eager), timing.ratio(mine, fast_s)
    lines = [timing.row(size, dtype, mine, eager, fast_s, *ratios, GOALS[dtype])]
    return lines + ([f"{size}: no compiled column: {reason}"] if reason else [])


def main() -> None:
    """Print rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=["tiny", "middle", "published"], choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = (
        "size",
        "dtype",
        "JAX (s)",
        "eager (s)",
        "compiled (s)",
        "÷ eager",
        "÷ compiled",
        "goal, ÷ eager",
    )
    print(timing.header(names))
    for size in options.sizes:
        for dtype in GOALS:
            print("\n".join(measure(size, dtype, options.rounds, options.compile)), flush=True)
            jax.clear_caches()


if __name__ == "__main__":
    main()
