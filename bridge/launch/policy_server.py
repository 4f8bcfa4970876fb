"""One of the launch's policy servers (``algorithm.serve.mode=process``)."""

from __future__ import annotations

from bridge.launch.worker import Worker, dealt
from pirl_jax.recipe import LaunchConfig


class PolicyServer(Worker):
    """A policy server, and those that follow it under its number; it needs no learner to be there."""

    kind, module = "policy server", "pirl_jax.serve"

    @staticmethod
    def environment(settings: LaunchConfig, number: int) -> dict[str, str]:
        return dealt(number, {"CUDA_VISIBLE_DEVICES": settings.server_devices})

    def _begin(self, now: float) -> None:
        self.slot.start((*self._arguments, f"--replica={self.number}"), self.slot.fresh(), now)
        self._say(f"{self.slot.name} starts: {self.slot.log}")
