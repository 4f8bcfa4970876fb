"""Nested dicts: their leaves with the way to each, and back. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Path = tuple[str, ...]


def leaves(tree: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Iterate over the leaves of nested dicts, in the dicts' own order, with the names that lead to each."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def nest(leaves: Iterable[tuple[Path, Any]]) -> dict[str, Any]:
    """Undo ``leaves``; empty dicts are not made again."""
    tree: dict[str, Any] = {}
    for (*parents, last), leaf in leaves:
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of both, of those that are in both the second's."""
    merged = dict(first)
    for name, branch in second.items():
        both = isinstance(branch, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merge(merged[name], branch) if both else branch
    return merged
