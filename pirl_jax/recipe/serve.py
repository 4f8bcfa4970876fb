"""``algorithm.serve``: the policy server, which acts for all actors of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pirl_jax.recipe import ranges


@dataclass(frozen=True)
class ServeConfig:
    """How observations of many actors become batches.

    Nothing of it changes what is drawn for an observation, but for the rounding of programs of other sizes.
    """

    mode: Literal["learner", "process"] = "learner"
    """Where it runs: in the learner's process, on the learner's device and port, where what it encodes is
    learned from without being encoded again; or as processes of their own (``python -m pirl_jax.serve``)."""
    replicas: int = 1
    """``process``: how many there are, for ``pirl-launch``."""
    host: str = "127.0.0.1"
    """``process``: where a replica listens, and where actors find it."""
    port: int = 50061
    """``process``: of replica 0; the others listen on the ports after it."""

    max_batch: int = 32
    """Observations in one call of the policy. There is a program for each power of two up to it."""
    max_wait_ms: float = 10.0
    """Milliseconds that an observation waits for others; in mode ``learner`` none if all that are played have
    asked."""
    features_gb: float = 4.0
    """GiB of host memory for encoded observations, from which the learner learns without encoding them again.
    Beyond it the oldest are given up, and encoded again."""

    def __post_init__(self) -> None:
        ranges.check("serve", self)
        ranges.check_address("algorithm.serve.", self.host, self.port)
        if self.port + self.replicas - 1 not in ranges.PORT:
            raise ValueError(
                f"algorithm.serve.port={self.port} leaves too few ports for algorithm.serve.replicas="
                f"{self.replicas}: the last is {ranges.PORT.high}."
            )
        if self.host in ("0.0.0.0", "[::]"):
            raise ValueError(
                f"algorithm.serve.host must be an address at which actors find the servers; got {self.host}, "
                "which is every one of a machine and leads to none."
            )
