"""Draw what a policy server gives by batch size beside what actors want by their number. Run it as a script.

python tests/benchmarks/serving_figure.py

Reads ``docs/results/serving/curves.json``, which ``bench_serving.py supply`` and ``demand`` write with
``--into``: ``supply`` is size → batch → chunks a second (0: the stock policy), ``demand`` number of
simulators → chunks a second.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter, StrMethodFormatter

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "results" / "serving"
COLOURS = {"small": "#4878a8", "published": "#c06040"}


def main() -> None:
    """Write ``curves.png`` beside the numbers."""
    found = json.loads((FOLDER / "curves.json").read_text())
    figure, axes = plt.subplots(figsize=(8.5, 4), layout="constrained")
    for size, by_batch in found.get("supply", {}).items():
        _supply(axes, size, {int(batch): rate for batch, rate in by_batch.items()})
    if demand := {int(count): rate for count, rate in found.get("demand", {}).items()}:
        axes.plot(
            demand.keys(), demand.values(), "s-", color="black", label="wanted by so many LIBERO actors"
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("observations in a batch; number of actors")
    axes.set_ylabel("chunks a second")
    figure.legend(fontsize=8, frameon=False, loc="outside right upper")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(FOLDER / "curves.png", dpi=110)


def _supply(axes: Any, size: str, rates: dict[int, float]) -> None:
    colour = COLOURS.get(size)
    if stock := rates.pop(0, None):
        axes.axhline(
            stock, color=colour, linewidth=1, linestyle=":", label=f"{size}: LeRobot's policy, one by one"
        )
    axes.plot(rates.keys(), rates.values(), "o-", color=colour, label=f"{size}: served")


if __name__ == "__main__":
    main()
