"""Which values the recipe's numbers and choices may have: one table, and the check that each section runs."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True)
class Range:
    """An interval of numbers; its ends belong to it unless they are open."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.low_open else '≥'} {self.low:g}"
        left, right = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"in {left}{self.low:g}, {self.high:g}{right}"


POSITIVE = Range(0, low_open=True)
NOT_NEGATIVE = Range(0)
COUNT = Range(1)
SHARE = Range(0, 1)
FINITE = Range()
BELOW_ONE = Range(0, 1, high_open=True)
PORT = Range(1, 65535)
"""gRPC listens on another port than it is told beyond."""

RANGES: Mapping[str, Mapping[str, Range]] = {
    "noise": {
        "level": POSITIVE,
        "final_level": POSITIVE,
        "decay_updates": NOT_NEGATIVE,
        "std_range": POSITIVE,
        "head_hidden_dims": COUNT,
        "group_scale": POSITIVE,
        "correlation": BELOW_ONE,
        "gripper_temperature": POSITIVE,
    },
    "rollout": {
        "episodes_per_update": COUNT,
        "max_chunks": COUNT,
        "max_staleness": NOT_NEGATIVE,
        "group_size": COUNT,
        "group_return_range": FINITE,
        "task_success_range": SHARE,
        "task_window": COUNT,
    },
    "advantage": {"gamma": SHARE, "gae_lambda": SHARE, "min_std": POSITIVE},
    "objective": {
        "clip_ratio": POSITIVE,
        "dual_clip": Range(1, low_open=True),
        "max_behaviour_weight": POSITIVE,
        "reference_kl_coef": NOT_NEGATIVE,
        "entropy_coef": NOT_NEGATIVE,
    },
    "critic": {
        "hidden_dims": COUNT,
        "lr": NOT_NEGATIVE,
        "value_clip": POSITIVE,
        "huber_delta": POSITIVE,
        "value_coef": NOT_NEGATIVE,
        "extra_steps": NOT_NEGATIVE,
        "warmup_updates": NOT_NEGATIVE,
    },
    "optimizer": {
        "num_epochs": COUNT,
        "minibatch_size": COUNT,
        "microbatch_size": COUNT,
        "lr": NOT_NEGATIVE,
        "lr_warmup_steps": NOT_NEGATIVE,
        "betas": BELOW_ONE,
        "eps": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
        "grad_clip_norm": POSITIVE,
        "target_kl": POSITIVE,
    },
    "demonstrations": {
        "coef": NOT_NEGATIVE,
        "final_coef": NOT_NEGATIVE,
        "decay_updates": NOT_NEGATIVE,
        "batch_size": COUNT,
        "max_samples": COUNT,
    },
    "push": {},
    "mesh": {"data": COUNT, "fsdp": COUNT},
    "videos": {"every_episodes": NOT_NEGATIVE, "episodes": COUNT, "keep": COUNT},
    "watchdog": {"max_kl": POSITIVE, "patience": COUNT},
    "serve": {
        "replicas": COUNT,
        "port": PORT,
        "max_batch": COUNT,
        "max_wait_ms": Range(0, 60_000),
        "features_gb": NOT_NEGATIVE,
    },
    "security": {
        "max_streams": Range(8),
        "max_messages_per_s": POSITIVE,
        "max_mb_per_s": POSITIVE,
    },
    "launch": {
        "actors": COUNT,
        "threads": COUNT,
        "learner_devices": NOT_NEGATIVE,
        "devices": NOT_NEGATIVE,
        "server_devices": NOT_NEGATIVE,
        "egl_devices": NOT_NEGATIVE,
        **dict.fromkeys(("cpus", "gpus", "learner_cpus", "learner_gpus"), NOT_NEGATIVE),
        **dict.fromkeys(("server_cpus", "server_gpus"), NOT_NEGATIVE),
        "max_restarts": NOT_NEGATIVE,
        "restart_window_s": POSITIVE,
        "backoff_s": NOT_NEGATIVE,
        "listen_within_s": POSITIVE,
        "hang_after_s": POSITIVE,
    },
    "checkpoint": {"keep_last": NOT_NEGATIVE, "keep_every": NOT_NEGATIVE},
    "run": {
        "max_actors": COUNT,
        "memory_gb": POSITIVE,
        "rows_gb": NOT_NEGATIVE,
        "online_steps": COUNT,
    },
}
"""Section → field → what each of its numbers must be, where it is a number: neither None nor a word. ``run``:
what stands in no section, and is no part of the method."""

ASCENDING = frozenset(
    {("noise", "std_range"), ("rollout", "group_return_range"), ("rollout", "task_success_range")}
)
"""Fields of two numbers, the first of which must be below the second."""


def check(section: str, config: Any) -> None:
    """Check a section's numbers against ``RANGES`` and its choices against their ``Literal`` types.

    Raises:
        ValueError: naming the field, what it must be and what was found.
    """
    choices = typing.get_type_hints(type(config))
    for field in fields(config):
        name, value = f"algorithm.{section}.{field.name}", getattr(config, field.name)
        if typing.get_origin(choices[field.name]) is Literal:
            check_choice(name, value, typing.get_args(choices[field.name]))
        allowed = RANGES[section].get(field.name)
        if allowed is None or value is None:
            continue
        if isinstance(value, bool):
            raise ValueError(f"{name} must be a number; got {value}.")
        if isinstance(value, str):
            words = [word for kind in typing.get_args(choices[field.name]) for word in typing.get_args(kind)]
            check_choice(name, value, words)
            continue
        for part, number in _numbers(value):
            if number not in allowed:
                raise ValueError(f"{name}{part} must be {allowed}; got {number}.")
        if (section, field.name) in ASCENDING:
            low, high = value
            if not low < high:
                raise ValueError(f"{name} must be two numbers, the lower first; got {low} and {high}.")


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Check one choice.

    Raises:
        ValueError: naming the field, what it must be and what was found.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(allowed)}; got {value!r}.")


def check_address(prefix: str, host: str, port: int) -> None:
    """Check where a server listens.

    Args:
        prefix: of the settings' names, before ``host`` and ``port``.
        host: a name, or an address.
        port: its port.

    Raises:
        ValueError: naming the setting, what it must be and what was found.
    """
    check_host(f"{prefix}host", host)
    if port not in PORT:
        raise ValueError(f"{prefix}port must be {PORT}; got {port}.")


def check_host(name: str, host: str) -> None:
    """Check the host of an address.

    Args:
        name: of the setting.
        host: a name, or an address.

    Raises:
        ValueError: naming the setting, what it must be and what was found.
    """
    in_brackets = host.startswith("[") and host.endswith("]")
    if not host or host.strip() != host or (":" in host and not in_brackets):
        raise ValueError(f"{name} must be a name or an address, IPv6 in brackets as [::1]; got {host!r}.")


def _numbers(value: Any) -> list[tuple[str, float]]:
    """Each number of a field, with what its name has after the field's."""
    if isinstance(value, Mapping):
        return [(f".{key}", number) for key, number in value.items()]
    return [("", number) for number in (value if isinstance(value, (tuple, list)) else [value])]
