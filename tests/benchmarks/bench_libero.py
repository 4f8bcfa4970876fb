"""Actions a CPU second on LIBERO: whole chunks with one image against plain stepping. Run it as a script.

python tests/benchmarks/bench_libero.py [--chunk 10] [--rounds 6]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "libero"))

SIZE = 256
GOAL = 5.0


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of this process and all its threads: software rendering has its own."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunk", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()

    from assets import point_libero_at_assets

    if problem := point_libero_at_assets():
        print(f"skipped: {problem}")
        return
    from chunked import chunked, random_chunk, row, stock, task

    size = {"observation_height": SIZE, "observation_width": SIZE}
    which = task("libero_spatial", 0)
    plain, ours = stock(which, **size), chunked(which, image_size=SIZE)
    plain.reset(seed=0)
    ours.reset(seed=0, options={"init_state": 0})
    rng = np.random.default_rng(0)
    seconds: dict[str, float] = {"plain": 0.0, "chunked": 0.0}
    for _ in range(options.rounds):  # alternately, so that both meet the same machine
        chunk = random_chunk(rng, options.chunk)
        plain._env.sim._render_context_offscreen.gl_ctx.make_current()
        seconds["plain"] += cpu_seconds(lambda chunk=chunk: [plain.step(action) for action in chunk])
        seconds["chunked"] += cpu_seconds(lambda chunk=chunk: ours.step(row(chunk)))
    actions = options.rounds * options.chunk
    for name, spent in seconds.items():
        print(f"{name:>8} {actions / spent:8.1f} actions / CPU s   {1000 * spent / actions:7.1f} ms each")
    ratio = seconds["plain"] / seconds["chunked"]
    print(f"   ratio {ratio:8.1f}  (goal {GOAL:.0f} at chunk 10, {SIZE} px)")
    ours.close()
    plain.close()


if __name__ == "__main__":
    main()
