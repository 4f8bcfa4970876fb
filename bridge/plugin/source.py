"""What installed code looks like, read from its files: nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any


def source(module: str) -> str | None:
    """Return a module's source without importing it or its parents; None if there is none."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location, *rest)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file.read_text(encoding="utf-8")
    return None


_parse = lru_cache(maxsize=4)(ast.parse)  # neighbours in the table ask for the same files


def difference(place: str, code: tuple[str, ...]) -> str:
    """Say what is not as a seam expects it, to follow the name of the place; "" if nothing is.

    Args:
        place: As in ``seams.Seam.expected``.
        code: Pieces of its source, in order.
    """
    where, has_parameters, parameters = place.removesuffix(")").partition("(")
    module, _, path = where.partition(":")
    text = source(module)
    node: Any = None if text is None else _parse(text)
    for name in path.split("."):
        node = next(
            (child for child in getattr(node, "body", ()) if getattr(child, "name", "") == name), None
        )
    if node is None:
        return "is not there"
    if has_parameters and (found := ", ".join(_parameter_names(node.args))) != parameters:
        return f"takes ({found}) instead of ({parameters})"
    unparsed, position = ast.unparse(node), 0
    for piece in code:
        position = unparsed.find(piece, position)
        if position < 0:
            return f"no longer has `{piece}` where it was"
    return ""


def _parameter_names(arguments: ast.arguments) -> list[str]:
    positional = (*arguments.posonlyargs, *arguments.args, arguments.vararg)
    return [each.arg for each in (*positional, *arguments.kwonlyargs, arguments.kwarg) if each is not None]
