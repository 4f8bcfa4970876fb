"""Compiling for NVIDIA cards on a machine that has none: ``make test-aot``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

CARDS = Path(__file__).parent / "cards"


@pytest.fixture(scope="session")
def card() -> Callable[[str], Sharding]:
    """Return a function: name of a file in ``cards/`` → where to place what is compiled for that card."""
    if not importlib.util.find_spec("jax_plugins"):
        pytest.skip("JAX's CUDA plugin, which is the compiler, is not installed: make test-aot")
    jax.devices()  # registers it

    def place(name: str) -> Sharding:
        config = (CARDS / f"{name}.txtpb").read_text()
        topology = topologies.get_topology_desc(platform="cuda", target_config=config, topology="1x1x1")
        return NamedSharding(Mesh([topology.devices[0]], ("card",)), PartitionSpec())

    return place
