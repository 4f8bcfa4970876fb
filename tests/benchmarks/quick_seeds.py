"""The quick demo with several seeds: each a process of its own, as a user starts it, unchanged.

python tests/benchmarks/quick_seeds.py --output_dir=outputs/quick_seeds

A seed whose run is there is not run again. Writes ``quick.json`` and ``quick.png``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator, PercentFormatter

_PATHS = ("actor_command",)  # of this machine; the rest is the run's


def summary(folder: Path, seed: int) -> dict[str, Any]:
    """Return what a seed's run has found, after running it if it was not; load is that of its start."""
    found = folder / "summary.json"
    if not found.exists():
        load = os.getloadavg()[0]
        options = ["--quick", f"--seed={seed}", f"--output_dir={folder}"]
        with (folder.parent / f"{folder.name}.log").open("w") as log:
            subprocess.run(
                [sys.executable, "-m", "bridge.demo", *options], stdout=log, stderr=log, check=True
            )
        found.write_text(json.dumps(json.loads(found.read_text()) | {"load_before": round(load, 1)}))
    return {name: value for name, value in json.loads(found.read_text()).items() if name not in _PATHS}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the runs in Markdown."""
    lines = [
        "| seed | updates 1 – 3 | last three | points | p | episodes | wall, s | CPU, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ends = [f"{row[name]['success']:.1%} of {row[name]['n']}" for name in ("first", "last")]
        found = [f"{100 * row['gain']:+.1f}", f"{row['p_value']:.1g}", str(row["episodes"])]
        seconds = [f"{row[name]:.0f}" for name in ("wall_seconds", "cpu_seconds")]
        lines.append(f"| {' | '.join([str(row['seed']), *ends, *found, *seconds])} |")
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Success of every update, a line a seed."""
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained", dpi=140)
    for row in rows:
        rates = row["success_rates"]
        axis.plot(range(1, len(rates) + 1), rates, marker="o", markersize=3, label=f"seed {row['seed']}")
    axis.set_title("quick demo: success of the exploring policy", loc="left", fontsize=9)
    axis.set_xlabel("update", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_ylim(0, 1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.tick_params(labelsize=9)
    axis.legend(fontsize=8, frameon=False)
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/quick_seeds"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        rows.append(summary(options.output_dir / f"seed{seed}", seed))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        (options.output_dir / "quick.json").write_text(json.dumps(rows, indent=1) + "\n")
        draw(rows, options.output_dir / "quick.png")
    print(f"\n{table(rows)}\n\nresults: {options.output_dir}/")


if __name__ == "__main__":
    main()
