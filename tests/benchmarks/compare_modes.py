"""The noise modes on the demo's task: one start, the same updates, several seeds, real actors.

python tests/benchmarks/compare_modes.py --start outputs/demo/sft/checkpoints/last/pretrained_model

Hours on two cores. Every finished run is kept: the same command goes on where it was stopped. Writes
``modes.json``, ``modes.md`` and ``modes.png``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy import stats

from bridge.demo.evaluate import Evaluator
from bridge.demo.record import TEST_SEEDS
from bridge.demo.training import train

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "panda_pick_cube.json"
FIXED_LR = "--algorithm.optimizer.adaptive_lr=false"
MODES: Mapping[str, Sequence[str]] = {
    "terminal": ["--algorithm.noise.level=0.15"],
    "flow_sde": ["--algorithm.noise.mode=flow_sde", "--algorithm.noise.level=0.5", FIXED_LR],
    "flow_cps": ["--algorithm.noise.mode=flow_cps", "--algorithm.noise.level=0.95", FIXED_LR],
    "flow_noise": ["--algorithm.noise.mode=flow_noise", "--algorithm.noise.level=0.15"],
}
"""Settings of each mode; the rest is the demo's. The KL of a step in the middle of the chain is not the
action's: a learning rate that is steered by it grows until the policy is lost."""
WIDTH = 5
"""Updates over which training success is averaged."""


def run(
    mode: str, seed: int, start: Path, folder: Path, options: argparse.Namespace, evaluate: Evaluator
) -> dict:
    """Train and evaluate once, or return what an earlier call left."""
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    arguments = [*MODES[mode], f"--steps={options.updates}", "--save_freq=0"]
    training = train(CONFIG, start, folder, seed, arguments)
    seconds = time.monotonic() - began
    after = evaluate(training.policy, range(TEST_SEEDS, TEST_SEEDS + options.episodes))
    row = {
        "mode": mode,
        "seed": seed,
        "after": after.summary(),
        "training_seconds": round(seconds, 1),
        "episodes": [row["train/episodes"] for row in training.metrics],
        "success": [row["train/success_rate"] for row in training.metrics],
        "max_logprob_gap": max(row["train/actor_learner_logprob_gap"] for row in training.metrics),
    }
    result.write_text(json.dumps(row, indent=1) + "\n")
    return row


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval over seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def episodes_to(row: Mapping[str, Any], threshold: float) -> float | None:
    """Episodes played when the mean success of the last updates first reaches ``threshold``."""
    smooth = np.convolve(row["success"], np.ones(WIDTH) / WIDTH, mode="valid")
    reached = np.nonzero(smooth >= threshold)[0]
    return float(np.cumsum(row["episodes"])[reached[0] + WIDTH - 1]) if len(reached) else None


def table(rows: Sequence[Mapping[str, Any]], before: Mapping[str, Any], threshold: float) -> str:
    """Return the comparison in Markdown."""
    lines = [
        f"Before: {before['success']:.1%} of {before['n']} held-out episodes "
        f"[{before['ci95'][0]:.1%}, {before['ci95'][1]:.1%}].",
        "",
        f"| mode | seeds | after, zero noise | 95 % interval over seeds | episodes to {threshold:.0%} while "
        "training | training, s |",
        "|---|---|---|---|---|---|",
    ]
    for mode in MODES:
        mine = [row for row in rows if row["mode"] == mode]
        if not mine:
            continue
        mean, low, high = interval([row["after"]["success"] for row in mine])
        reached = [episodes_to(row, threshold) for row in mine]
        lines.append(
            f"| `{mode}` | {len(mine)} | {mean:.1%} | {low:.1%} to {high:.1%} "
            f"| {', '.join('never' if x is None else f'{x:.0f}' for x in reached)} "
            f"| {np.mean([row['training_seconds'] for row in mine]):.0f} |"
        )
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], before: Mapping[str, Any], path: Path) -> None:
    """Success while training, mean and 95 % interval over seeds; and after, without noise."""
    figure, (axis, ends) = plt.subplots(
        1, 2, figsize=(10, 4.2), width_ratios=(3, 1), sharey=True, layout="constrained", dpi=140
    )
    for index, (mode, colour) in enumerate(zip(MODES, ("#4878a8", "#c8553d", "#3a9a5b", "#8a5fa8"))):
        mine = [row for row in rows if row["mode"] == mode]
        if not mine:
            continue
        smooth = np.array([np.convolve(row["success"], np.ones(WIDTH) / WIDTH, mode="valid") for row in mine])
        updates = np.arange(WIDTH, smooth.shape[1] + WIDTH)
        mean, low, high = np.array([interval(column) for column in smooth.T]).T
        axis.plot(updates, mean, color=colour, linewidth=2, label=mode)
        axis.fill_between(updates, low, high, color=colour, alpha=0.15, linewidth=0)
        for row in mine:
            rate, (bottom, top) = row["after"]["success"], row["after"]["ci95"]
            x = index + 0.18 * (row["seed"] - 1)
            ends.errorbar(x, rate, [[rate - bottom], [top - rate]], fmt="o", color=colour, capsize=2)
    ends.axhline(before["success"], color="0.4", linestyle="--", linewidth=1)
    ends.annotate("before", (0, before["success"]), xytext=(0, 4), textcoords="offset points", color="0.4")
    ends.set_xticks(range(len(MODES)), MODES, rotation=45, ha="right")
    axis.set_title(f"exploring policy, training episodes (mean of {WIDTH} updates)", loc="left", fontsize=9)
    ends.set_title("zero-noise policy, held out", loc="left", fontsize=9)
    axis.set_xlabel("update", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8, frameon=False)
    for panel in (axis, ends):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="0.9", linewidth=0.8)
        panel.tick_params(labelsize=9)
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True, help="policy folder that every run starts from")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/modes"))
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=300, help="held-out episodes of an evaluation")
    parser.add_argument("--threshold", type=float, default=0.5)
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    with Evaluator() as evaluate:
        saved = options.output_dir / "before.json"
        if not saved.exists():
            summary = evaluate(options.start, range(TEST_SEEDS, TEST_SEEDS + options.episodes)).summary()
            saved.write_text(json.dumps(summary) + "\n")
        before = json.loads(saved.read_text())
        for seed, mode in itertools.product(range(options.seeds), MODES):
            folder = options.output_dir / f"{mode}-seed{seed}"
            rows.append(run(mode, seed, options.start, folder, options, evaluate))
            print(f"{mode}, seed {seed}: {rows[-1]['after']['success']:.1%}", flush=True)
            text = table(rows, before, options.threshold)
            (options.output_dir / "modes.md").write_text(text + "\n")
            (options.output_dir / "modes.json").write_text(
                json.dumps({"before": before, "runs": rows}, indent=1) + "\n"
            )
            draw(rows, before, options.output_dir / "modes.png")
    print(f"\n{text}\n\nresults: {options.output_dir}/")


if __name__ == "__main__":
    main()
