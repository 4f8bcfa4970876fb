"""Compiling for NVIDIA cards on a machine that has none: ``make test-aot``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

CARDS = Path(__file__).parent / "cards"


@pytest.fixture(scope="session")
def card() -> Callable[[str], Sharding]:
    """Return a function: name of a file in ``cards/`` → where to place what is compiled for that card."""
    return lambda name: NamedSharding(Mesh(described(name, 1), ("card",)), PartitionSpec())


def described(name: str, count: int) -> list[Any]:
    """Return as many cards of a kind, in one machine, as JAX's devices."""
    if not importlib.util.find_spec("jax_plugins"):
        pytest.skip("JAX's CUDA plugin, which is the compiler, is not installed: make test-aot")
    jax.devices()  # registers it
    config = (CARDS / f"{name}.txtpb").read_text()
    topology = topologies.get_topology_desc(platform="cuda", target_config=config, topology=f"1x1x{count}")
    return list(topology.devices)
