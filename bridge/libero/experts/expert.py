"""The project's expert: what the task's goals name it takes to its places, as precisely as it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bridge.libero.experts.phases import PickAndPlace
from bridge.libero.experts.scene import Scene
from bridge.libero.experts.servo import command

_JERK = 0.15
"""By how much a command may differ from the last while something is carried, or small flat things slip."""
_TURN_NOISE = 0.3
"""Noise of turning, as a share of that of moving."""


class Expert:
    """Plays one episode: ``act()`` gives its next command.

    Args:
        simulator: LeRobot's LIBERO environment, reset.
        rng: For the noise.
        noise: Standard deviation of what is added to each command, in commands (1 is 5 cm of moving). It is
            independent in each step, and none is added while the fingers close or open.
        aim_offset: A systematic error: how far beside a thing the hand is aimed when it takes it, [2], metres
            along the world's x and y.

    Raises:
        ValueError: The task asks for something else than to put things somewhere.
    """

    def __init__(
        self,
        simulator: Any,
        *,
        rng: np.random.Generator,
        noise: float = 0.0,
        aim_offset: Sequence[float] = (0.0, 0.0),
    ) -> None:
        self._scene = Scene(simulator)
        self._goals = list(self._scene.goals)
        self._rng, self._noise = rng, noise
        self._aim_offset = np.asarray(aim_offset, float)
        self._moved = np.zeros(3)
        self._next()

    def act(self) -> np.ndarray:
        """Return the next command of LIBERO's relative control, float32 [7] in [-1, 1]."""
        if self._goals and self.job.done:
            self._next()
        hand = self._scene.hand()
        goal = self.job.step(hand)
        phase = self.job.phase
        motion = command(hand, goal, phase.speed)
        if phase.carries:
            motion[:3] = self._moved + (motion[:3] - self._moved).clip(-_JERK, _JERK)
        self._moved = motion[:3].copy()
        if not phase.waits:
            motion += self._rng.normal(0.0, self._noise, 6) * np.repeat([1.0, _TURN_NOISE], 3)
        return np.append(motion.clip(-1, 1), 1.0 if phase.closed else -1.0).astype(np.float32)

    def _next(self) -> None:
        self.job = PickAndPlace(self._scene, *self._goals.pop(0), self._aim_offset)
