"""Draw the ratios of ``docs/benchmarks.md`` with their goals. Run it as a script.

python tests/benchmarks/ratios_figure.py

Reads ``docs/results/benchmarks/ratios.json``: what was measured → ratio and goal (null: none).
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "results" / "benchmarks"


def main() -> None:
    """Write ``ratios.png`` beside the numbers."""
    rows = json.loads((FOLDER / "ratios.json").read_text())
    names, places = list(rows), range(len(rows))
    figure, axes = plt.subplots(figsize=(7.5, 0.32 * len(rows) + 0.9))
    met = [row["goal"] is None or row["ratio"] <= row["goal"] for row in rows.values()]
    colours = ["#4878a8" if each else "#c06040" for each in met]
    axes.barh(places, [row["ratio"] for row in rows.values()], color=colours, height=0.65)
    for place, row in zip(places, rows.values()):
        if row["goal"] is not None:
            axes.plot([row["goal"]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=2)
        axes.text(row["ratio"] + 0.01, place, f"{row['ratio']:.2g}", va="center", fontsize=8)
    axes.axvline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("time, ours ÷ torch eager or LeRobot (black: goal; red: goal missed)", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(FOLDER / "ratios.png", dpi=110)


if __name__ == "__main__":
    main()
