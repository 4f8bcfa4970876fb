"""A whole PPO update behind a frozen encoder: JAX over torch, eager and compiled. Run it as a script.

python tests/benchmarks/bench_update.py [tiny|middle|published …] [--rounds N] [--no_compile]

Values, advantages, and epochs of minibatch steps of policy and critic, on one pinned core; CPU seconds,
medians of rounds that alternate. The same episodes with kept features; with every observation encoded once
besides; and against a torch learner that keeps no features and encodes at every minibatch. Both learners have
to agree on the first update before anything is measured. ``published`` takes 14 GiB and some minutes a round.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import timing

timing.pin()

import jax  # noqa: E402
import torch  # noqa: E402
from equal_learners import Learners, check_equal, frames, learners, networks, recipe  # noqa: E402

from pirl_jax.training.parts import capacity_of, scoring_blocks  # noqa: E402

WORK = {"tiny": (8, 7, 16, 2), "middle": (4, 4, 8, 2), "published": (2, 4, 8, 1)}
"""Episodes, chunks in each, points of a minibatch, epochs."""
GOALS = {"update": 0.6, "update and encoding": None, "against encoding at every minibatch": 0.4}


class Encoders:
    """Every observation of an update, encoded once by each library."""

    def __init__(self, pair: Learners) -> None:
        self._pair = pair
        self._images, self._tokens = frames(pair.nets, capacity_of(pair.recipe))

    def ours(self) -> None:
        """Encode in the learner's blocks, and bring what comes out to host memory."""
        size = scoring_blocks(self._pair.recipe.rollout)[0]
        encode, frozen = self._pair.parts.score.encode, self._pair.frozen
        waiting = [
            encode(frozen, self._images[i : i + size], self._tokens[i : i + size])
            for i in range(0, len(self._images), size)
        ]
        jax.device_get(waiting)

    def theirs(self) -> None:
        """Encode as many at a time as a minibatch has."""
        size = self._pair.recipe.optimizer.minibatch_size
        with torch.no_grad():
            for i in range(0, len(self._images), size):
                images, tokens = (torch.from_numpy(x[i : i + size]) for x in (self._images, self._tokens))
                self._pair.torch.encode(images, tokens.long())


def measure(size: str, rounds: int, compile_torch: bool) -> list[str]:
    """Return the table's rows of a size."""
    episodes, chunks, minibatch, epochs = WORK[size]
    settings = recipe(episodes, chunks, minibatch, epochs)
    pair = learners(networks(size), settings)
    orders = pair.orders()
    check_equal(pair.update(), pair.torch_update(orders))
    fast, reason = None, "not asked for"
    if compile_torch:
        other = learners(networks(size), settings, compiled=True)
        fast, reason = timing.compiled_or_not(lambda: lambda: other.torch_update(orders))
    encoders = Encoders(pair)
    steps = {
        "ours": pair.update,
        "theirs": lambda: pair.torch_update(orders),
        "compiled": fast,
        "encode": encoders.ours,
        "their encode": encoders.theirs,
        "not kept": lambda: pair.torch_update(orders, views=True),
    }
    repeats = {"tiny": 3}.get(size, 1)
    found = timing.alternately(steps, rounds, repeats)
    ours, theirs, compiled, encode, their_encode, not_kept = found.values()
    assert None not in (ours, theirs, encode, their_encode, not_kept)
    sums = {
        "update": (ours, theirs, compiled),
        "update and encoding": (ours + encode, theirs + their_encode, None),
        "against encoding at every minibatch": (ours + encode, not_kept, None),
    }
    lines = [
        timing.row(size, what, jax_s, eager, fast_s, jax_s / eager, timing.ratio(jax_s, fast_s), GOALS[what])
        for what, (jax_s, eager, fast_s) in sums.items()
    ]
    if reason:
        lines.append(f"{size}: no compiled column: {reason}")
    return lines


def main() -> None:
    """Print rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=["tiny", "middle"], choices=list(WORK))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no_compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = ("size", "what", "JAX (s)", "eager (s)", "compiled (s)", "÷ eager", "÷ compiled", "goal, ÷ eager")
    print(timing.header(names))
    for size in options.sizes:
        print("\n".join(measure(size, options.rounds, not options.no_compile)), flush=True)


if __name__ == "__main__":
    main()
