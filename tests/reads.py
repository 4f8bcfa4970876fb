"""Which settings code reads: ``something.name`` in its syntax tree, with what ``something`` is.

A name alone would prove little: ``lr`` and ``batch_size`` are read somewhere. So an attribute counts for a
class of settings if what it is read of has a name under which the class is known, or is annotated with it.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pirl_jax", "bridge")
CHECKS = ("__post_init__", "validate", "_check")
"""Functions that look at a setting without doing what it says."""

Read = tuple[str, str]
"""Name of an object or a class, name of an attribute of it."""


def files_of(entry: str) -> set[Path]:
    """Return the files of our own that a module imports, itself and imports inside functions included."""
    found: set[Path] = set()
    waiting = [entry]
    while waiting:
        file = _file_of(waiting.pop())
        if file is None or file in found:
            continue
        found.add(file)
        waiting += _imports(file)
    return found


@cache
def _imports(file: Path) -> list[str]:
    names = []
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def file_of_installed(module: str) -> Path:
    """Return the source of a module that need not be imported for it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def reads(files: Iterable[Path]) -> set[Read]:
    """Return what the files read of anything."""
    return {read for file in files for read in _reads(file)}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of a config class, in its place."""

    name: str
    """Dotted, as on a command line."""
    holders: frozenset[str]
    """Names under which code holds an object with the field."""
    field: str

    def is_read(self, found: set[Read]) -> bool:
        """Tell whether code reads it."""
        return any((holder, self.field) in found for holder in self.holders)


def settings(
    config: type, sections: Mapping[str, type], aliases: Mapping[str, set[str]], prefix: str = ""
) -> Iterator[Setting]:
    """Iterate over the fields that a config's command line sets, those of its sections in their place.

    Args:
        config: a dataclass.
        sections: dotted name → class, where the annotation names a registry or something optional.
        aliases: dotted name of a section ("" of the config itself) → other names of such an object.
        prefix: of the names.
    """
    hints = typing.get_type_hints(config)
    section = prefix.rsplit(".", 1)[-1]
    holders = {section, *aliases.get(prefix, ()), *(base.__name__ for base in config.__mro__)}
    for field in dataclasses.fields(config):
        if not field.init:
            continue
        name = f"{prefix}.{field.name}" if prefix else field.name
        kind: Any = sections.get(name, hints[field.name])
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from settings(kind, sections, aliases, name)
        else:
            yield Setting(name, frozenset(holders), field.name)


def _file_of(module: str) -> Path | None:
    if module.split(".")[0] not in PACKAGES:
        return None
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def _reads(file: Path) -> frozenset[Read]:
    found: set[Read] = set()
    _visit(_tree(file), {}, found)
    return frozenset(found)


def _visit(node: ast.AST, kinds: dict[str, str], found: set[Read]) -> None:
    """Collect what is read below a node, where ``kinds`` has the classes of the names in its scope."""
    if isinstance(node, ast.ClassDef):
        kinds = {**kinds, "self": node.name}
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if node.name in CHECKS:
            return
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        named = {a.arg: ast.unparse(a.annotation).split(".")[-1] for a in arguments if a.annotation}
        kinds = {**kinds, **_assigned(node), **named}
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        found |= {(holder, node.attr) for holder in _holders(node.value, kinds)}
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        holder, name = node.args[:2]
        if isinstance(name, ast.Constant):
            found |= {(each, str(name.value)) for each in _holders(holder, kinds)}
    for child in ast.iter_child_nodes(node):
        _visit(child, kinds, found)


def _assigned(function: ast.AST) -> dict[str, str]:
    """Return for ``name = something.section`` in a function the section, by name."""
    found = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts))
            found |= {
                t.id: v.attr for t, v in pairs if isinstance(t, ast.Name) and isinstance(v, ast.Attribute)
            }
    return found


def _holders(node: ast.expr, kinds: Mapping[str, str]) -> set[str]:
    if isinstance(node, ast.Name):
        return {node.id, kinds.get(node.id, node.id)}
    return {node.attr} if isinstance(node, ast.Attribute) else set()
