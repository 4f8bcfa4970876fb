"""The device that a process computes on, and the memory that it may use."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import psutil

GIB = 2**30
FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
SLACK = 0.05
"""Part of the memory that is left to fragments and to the workspaces of libraries."""
_M_MMAP_THRESHOLD = -3
_OF_ITS_OWN = 2**20
"""Bytes from which memory is taken from the system by itself, and given back by itself."""
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Budget:
    """Memory of a device, or of its host, in bytes."""

    size: int
    source: str
    """Where the number is from, in words."""


def check_device(asked_for: Sequence[int] | float, setting: str) -> None:
    """Check that a process which ``pirl-launch`` has given GPUs has found some.

    JAX would compute on the CPU without a word.

    Args:
        asked_for: their numbers, or how many; none: nobody has asked for any.
        setting: by which.

    Raises:
        ValueError: It has found none.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked_for and visible and jax.default_backend() == "cpu":
        value = list(asked_for) if isinstance(asked_for, Sequence) else asked_for
        raise ValueError(
            f"{setting}={value}, and JAX finds no GPU {visible}. See which there are (nvidia-smi), "
            "and whether JAX is installed for CUDA (pip install -e '.[cuda13]'), or unset it."
        )


def budget(memory_gb: float | None, setting: str) -> Budget:
    """Return what there is, or what the user allows of it.

    JAX takes its share of a GPU, by default three quarters, when it is first used, and leaves the rest to
    other processes: actors on the same card live there. A CPU's memory is what the machine has free.

    Args:
        memory_gb: what the user allows, in GiB; None: all of it.
        setting: its name in the config.

    Raises:
        ValueError: The user allows more than JAX has taken of the card.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit")
    if memory_gb is None:
        if limit is None:
            return budget_of_host()
        return Budget(limit, f"JAX's share of {jax.local_devices()[0].device_kind} ({fraction_in_words()})")
    if limit is not None and memory_gb * GIB > limit:
        raise ValueError(
            f"{setting}={memory_gb:g} is more than JAX has of this card, {readable(limit)} "
            f"({fraction_in_words()}). Lower it, or give JAX a larger share."
        )
    return Budget(int(memory_gb * GIB), setting)


def budget_of_host() -> Budget:
    """Return what the machine has free."""
    return Budget(free_host_memory(), "what this machine has free")


def give_back_what_is_freed() -> None:
    """Have this process return every large array's memory to the machine once it is freed.

    glibc learns from the first arrays that are freed to keep the memory of all up to 32 MiB, which is every
    tensor of a policy: at the published size 1.6 GiB lay idle.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library keeps its own ways
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _OF_ITS_OWN)


def allowed(budget: Budget) -> float:
    """Return the bytes that a run may plan with."""
    return (1 - SLACK) * budget.size


def readable(size: int) -> str:
    """Return a number of bytes as one reads it."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.2f} MiB"


def fraction_in_words() -> str:
    """Say what decides JAX's share of a card."""
    return f"{FRACTION}={os.environ.get(FRACTION, '.75')}"


def free_host_memory() -> int:
    """Return the bytes that this process may still take, of the machine or of its container."""
    free = psutil.virtual_memory().available
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free
    # Cached files are given back when memory is wanted.
    cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return max(0, min(free, limit - used + cached))
