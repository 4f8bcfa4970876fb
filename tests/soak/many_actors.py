"""What each actor costs the learner: CPU an update with one, and with many. Run it as a script.

python tests/soak/many_actors.py [--updates 30] [--actors 64] [--rounds 2] [--output FILE]

A tiny policy; an update is of as many episodes as there are many actors, in all runs. The learner is pinned
to a core, the synthetic actors, threads of one process, to the others. One and many take turns. Fails where
CPU seconds an update are more than a tenth above those with one actor (medians of rounds), or where more than
a twentieth of the chunks is stale.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import fmean, median
from typing import Any

from played import Played, cpu_s
from result import write

WARM = 3
"""Updates that compile."""
MORE, STALE = 0.1, 0.05


def measure(folder: Path, actors: int, episodes: int, updates: int) -> dict[str, Any]:
    """Return CPU seconds of the learner an update, and the share of stale chunks."""
    # With a staleness that is allowed, actors play ahead and every chunk is an update old.
    rollout = {"episodes_per_update": episodes, "max_staleness": 0}
    with Played(folder, actors, 10**6, core=0, rollout=rollout, max_actors=max(64, actors)) as run:
        run.until(lambda: len(run.rows()) >= WARM)
        first, before = len(run.rows()), cpu_s(run.learner.pid)
        run.until(lambda: len(run.rows()) >= first + updates)
        rows = run.rows()
        spent = (cpu_s(run.learner.pid) - before) / (len(rows) - first)
    found = {
        "actors": actors,
        "updates": len(rows) - first,
        "cpu_s_an_update": round(spent, 4),
        "stale_fraction": round(fmean(row["train/stale_fraction"] for row in rows[first:]), 4),
        "seconds_an_update": round((rows[-1]["time"] - rows[first - 1]["time"]) / (len(rows) - first), 3),
    }
    print(found, flush=True)
    return found


def main() -> None:
    """Run it, write down what was measured, and fail where it is too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--actors", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("outputs/soak/many_actors.json"))
    options = parser.parse_args()
    found: dict[int, list[dict[str, Any]]] = {1: [], options.actors: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.rounds):
            for actors, runs in found.items():
                place = Path(folder) / f"{actors}_{turn}"
                runs.append(measure(place, actors, options.actors, options.updates))
    one, many = (median(run["cpu_s_an_update"] for run in runs) for runs in found.values())
    bounds = {
        f"CPU with {options.actors} actors over that with one, less 1": (many / one - 1, MORE),
        "stale share": (max(run["stale_fraction"] for run in found[options.actors]), STALE),
    }
    if not write(options.output, {"runs": [run for runs in found.values() for run in runs]}, bounds):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
