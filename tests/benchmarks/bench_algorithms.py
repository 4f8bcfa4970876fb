"""Every noise mode with every algorithm, on a task with a known optimum and policy gradient (``analytic``).

make bench-algorithms, or python tests/benchmarks/bench_algorithms.py [--updates 20] [--seeds 5]

Prints a Markdown table: success of the zero-noise policy before and after, and the cosine of the gradient
that an update follows with the true one.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

import jax
import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import analytic

from pirl_jax.likelihood import modes

BATCHES = 32
REPLAYS = {False: ("full", "last"), True: ("last",)}
"""By whether every step is noised: then the stored chain is all there is to replay."""


def mean_interval(values: np.ndarray) -> str:
    """Mean and 95 % t interval over seeds."""
    mean, half = np.mean(values), stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    tasks = [analytic.start(seed) for seed in range(args.seeds)]

    def success(policies: list, parametrization: str) -> np.ndarray:
        pairs = zip(policies, tasks, strict=True)
        return np.array(
            [100 * float(analytic.success_rate(params, task, parametrization)) for params, (task, _) in pairs]
        )

    print(
        "| policy | mode | algorithm | success before | after | gain (points) | cosine, `last` | `full` | s |"
    )
    print("|" + "---|" * 9)
    for parametrization, mode in itertools.product(analytic.POLICIES, modes.MODES):
        case = analytic.Case(mode, "PPO", parametrization=parametrization)
        before = success([params for _, params in tasks], parametrization)
        # Gradients are compared two updates into training, so that there is an older policy to act.
        (task, older), current = case.start(0), case.train(0, 2).params
        truth = analytic.true_gradient(mode, current, task, 16, 0, parametrization)
        for algorithm, settings in analytic.ALGORITHMS.items():
            started = time.perf_counter()
            acted, cosines = older if settings.staleness else current, []
            for replay in REPLAYS[modes.MODES[mode].every_step]:
                case = analytic.Case(mode, algorithm, replay, parametrization)
                estimates = case.gradients(current, acted, task, BATCHES, seed=50_000)
                value, low, high = analytic.bootstrap_cosine(estimates, truth)
                cosines.insert(0, f"{value:.3f} [{low:.3f}, {high:.3f}]")
            cosines = (cosines * 2)[:2]
            trained = [case.train(seed, args.updates).params for seed in range(args.seeds)]
            after = success(trained, parametrization)
            cells = [parametrization, mode, algorithm, f"{before.mean():.1f}", f"{after.mean():.1f}"]
            cells += [mean_interval(after - before), *cosines, f"{time.perf_counter() - started:.0f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
    print(
        f"\nJAX {jax.__version__}, {jax.devices()[0].platform}; {args.seeds} seeds, {args.updates} updates."
    )


if __name__ == "__main__":
    main()
