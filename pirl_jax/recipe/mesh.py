"""``algorithm.mesh``: the devices of one host that the learner computes on."""

from __future__ import annotations

from dataclasses import dataclass

from pirl_jax.recipe import ranges


@dataclass(frozen=True)
class MeshConfig:
    """``data`` · ``fsdp`` devices, the first of those there are: they share the rows of what is computed.

    The update is the same on any number of them, to the rounding of sums.
    """

    data: int = 1
    """Copies of the trained parameters and their moments."""
    fsdp: int = 1
    """Devices that each copy is split over; a layer is gathered when it is used."""

    def __post_init__(self) -> None:
        ranges.check("mesh", self)

    @property
    def devices(self) -> int:
        """How many there are."""
        return self.data * self.fsdp
