"""What an episode's draws follow from: fixed functions of the run's seed and the episode's number.

The standard library and NumPy only; the actor imports this file too.
"""

from __future__ import annotations

import numpy as np

TRAINING_SEEDS = 1 << 30
"""Episode seeds of training are in [2^30, 2^31): seeds below are free for evaluation and never trained on."""

_NOISE = 0x901CE
"""Keeps the policy's noise apart from the environment's seed."""
_EVALUATION = 0xE7A1
"""Keeps evaluation's seeds apart from training's."""


def episode_seed(seed: int, group: int) -> int:
    """Return the seed of a run's n-th group of episodes: a fixed function of its arguments, in [2^30, 2^31).

    Args:
        seed: of the run.
        group: n; episodes that do not come in groups are groups of one.
    """
    return TRAINING_SEEDS + _draw(seed, group)


def evaluation_seed(seed: int, index: int) -> int:
    """Return the seed of the n-th episode of each of a run's evaluations, in [0, 2^30)."""
    return _draw(seed, index, _EVALUATION)


def noise_key(seed: int, number: int) -> int:
    """Return the key of the policy's noise in a run's n-th episode, in [0, 2^63)."""
    return int(np.random.SeedSequence([seed, number, _NOISE]).generate_state(1, np.uint64)[0] >> 1)


def _draw(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0]) % TRAINING_SEEDS
