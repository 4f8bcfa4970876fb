"""How soon a learner that is told to stop has its work safe. Run it as a script.

python tests/benchmarks/bench_stop.py [toy|tiny|quarter|half|published]

The run of ``bench_memory.py``. A SIGTERM comes in its third update, at some part of the time that the second
has taken: until the checkpoint of the second is whole, and until the learner has ended.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from pathlib import Path

from bench_memory import SIZES, running, write_run

from pirl_jax.run_folder.layout import read_step
from pirl_jax.run_folder.manifest import damage

GOAL_S = 20


def stopped(config: Path, part: float) -> tuple[float, float]:
    """Return the seconds until a checkpoint is whole, and until the learner has ended."""
    last = config.parent / "output" / "checkpoints" / "last"
    with running(config) as (learner, wait_for):
        wait_for(1)
        began = time.monotonic()
        wait_for(2)
        took = time.monotonic() - began
        print(f"an update takes {took:.1f} s; told to stop {part:.0%} of that into the next", flush=True)
        time.sleep(part * took)
        learner.send_signal(signal.SIGTERM)
        told = time.monotonic()
        while not last.exists():
            time.sleep(0.05)
        saved = time.monotonic() - told
        status = learner.wait()
        ended = time.monotonic() - told
    print("\n".join((config.parent / "log").read_text().splitlines()[-4:]))
    assert status == 128 + signal.SIGTERM, status
    assert damage(last.resolve()) is None
    assert read_step(last) == 2, read_step(last)
    return saved, ended


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("size", nargs="?", default="tiny")
    parser.add_argument("--part", type=float, default=0.7, help="of an update, after which the signal comes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pirl-stop-") as folder:
        config = write_run(Path(folder), SIZES[options.size], staleness=0, steps=2)
        saved, ended = stopped(config, options.part)
    print(f"a whole checkpoint after {saved:.1f} s, ended after {ended:.1f} s (goal: {GOAL_S} s)")


if __name__ == "__main__":
    main()
