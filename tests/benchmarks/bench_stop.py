"""How soon a learner that is told to stop has its work safe. Run it as a script.

python tests/benchmarks/bench_stop.py [tiny|quarter|half|published] [--after S]

The run of ``bench_memory.py``. A SIGTERM comes some seconds after the last episode of its third update has
come: how long until the checkpoint of the second is whole, and until the learner has ended.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bench_memory import PARTS, running, write_run

from bridge.launch.status import StatusLine
from pirl_jax.run_folder.layout import read_step
from pirl_jax.run_folder.manifest import damage

GOAL_S = 20


def stopped(config: Path, after: float) -> tuple[float, float]:
    """Return the seconds until a checkpoint is whole, and until the learner has ended."""
    last = config.parent / "output" / "checkpoints" / "last"
    address = json.loads(config.read_text())["algorithm"]["actor_learner_config"]
    with (
        running(config) as (learner, wait_for),
        closing(StatusLine(f"127.0.0.1:{address['learner_port']}")) as line,
    ):
        wait_for(2)
        while (status := line.ask()) is None or status.update < 2 or status.arrived < status.awaited:
            time.sleep(0.1)
        time.sleep(after)
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
    assert read_step(last) >= 2, read_step(last)  # a small one is through with the third before it is told
    return saved, ended


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("size", nargs="?", default="tiny")
    parser.add_argument("--after", type=float, default=1.0, help="seconds since the last episode came")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pirl-stop-") as folder:
        config = write_run(Path(folder), PARTS[options.size], staleness=0, steps=2)
        saved, ended = stopped(config, options.after)
    print(f"a whole checkpoint after {saved:.1f} s, ended after {ended:.1f} s (goal: {GOAL_S} s)")


if __name__ == "__main__":
    main()
