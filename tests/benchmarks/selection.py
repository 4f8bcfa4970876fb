"""Does what an update learns from depend on how long episodes take? A table. Run it as a script.

python tests/benchmarks/selection.py

Half of all episodes succeed; those that fail last ten times as long. Success in the batches of 100 updates of
64 episodes, with 95 % intervals (Wilson), by the learner's own collector; and by the rule "first come, first
served, and what is older than max_staleness updates on arrival is thrown away". The last column compares
times.
"""

from __future__ import annotations

import heapq
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rollout"))

from simulated_actors import SimulatedActors
from test_collect import Learner, Scored

from pirl_jax.training.interval import wilson

EPISODES, UPDATES, UPDATE_TIME = 64, 100, 5.0


def succeeds(number: int) -> bool:
    """A fair coin."""
    return bool(np.random.default_rng([5, number]).random() < 0.5)


def duration(number: int) -> float:
    """Of an episode."""
    return 1.0 if succeeds(number) else 10.0


def assigned(max_staleness: int, actors: int) -> tuple[list[bool], float, float]:
    """Return what updates learned from, the share of play that was thrown away, and the time it took."""
    learner = Learner(max_staleness, scored=lambda number: Scored(number, succeeds(number)), size=EPISODES)
    playing = SimulatedActors(learner.assignments, actors, duration)
    learner.collector._receive = playing.receive
    outcomes = []
    for _ in range(UPDATES):
        outcomes += [item.episode.success for item in learner.collector.collect()[0]]
        playing.learner_updates(UPDATE_TIME)
        learner.push()
    return outcomes, 0.0, playing.now


def first_come(max_staleness: int, actors: int) -> tuple[list[bool], float, float]:
    """Return the same for actors that play on by themselves."""
    number, now, update = actors, 0.0, 0
    busy = [(duration(n), n, 0) for n in range(actors)]
    heapq.heapify(busy)
    queue: list[tuple[int, int]] = []
    outcomes: list[bool] = []
    thrown = 0

    def finish() -> None:
        nonlocal number, now
        now, n, version = heapq.heappop(busy)
        queue.append((n, version))
        heapq.heappush(busy, (now + duration(number), number, update))
        number += 1

    while update < UPDATES:
        batch: list[bool] = []
        while len(batch) < EPISODES:
            if not queue:
                finish()
                continue
            n, version = queue.pop(0)
            if version < update - max_staleness:
                thrown += 1
            else:
                batch.append(succeeds(n))
        outcomes += batch
        until = now + UPDATE_TIME
        while busy[0][0] <= until:
            finish()
        now = until
        update += 1
    return outcomes, thrown / (thrown + len(outcomes)), now


def main() -> None:
    """Print the table."""
    print("| max_staleness | actors | assigned, in order | first come | thrown away | time |")
    print("|---|---|---|---|---|---|")
    for max_staleness in (0, 1, 2):
        for actors in (1, 4, 16, 64):
            ours, theirs = (rule(max_staleness, actors) for rule in (assigned, first_come))
            print(
                f"| {max_staleness} | {actors} | {_rate(ours[0])} | {_rate(theirs[0])} | {theirs[1]:.0%} "
                f"| {ours[2] / theirs[2]:.2f} |"
            )


def _rate(outcomes: list[bool]) -> str:
    low, high = wilson(sum(outcomes), len(outcomes))
    return f"{np.mean(outcomes):.1%} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
