"""One compiled program in place of the many small ones that a function of JAX is, run step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax


def jit_by_config(function: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.jit`` of a function whose first argument is a config.

    Configs hold dictionaries, so that ``static_argnums`` cannot take them: here they are told apart by what
    is written in them. All other arguments are arrays, or trees of them.
    """
    programs: dict[str, Callable[..., Any]] = {}

    @functools.wraps(function)
    def call(config: Any, *arrays: Any) -> Any:
        name = repr(config)
        if name not in programs:
            programs[name] = jax.jit(functools.partial(function, config))
        return programs[name](*arrays)

    return call
