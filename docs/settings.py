"""Write every setting of our own as a page: ``docs/reference/settings.md``.

    python docs/settings.py            # prints it
    python docs/settings.py --write    # writes the page

Names, types, defaults and effects are read from the config classes' source, ranges from
``pirl_jax/recipe/ranges.py``: neither torch nor LeRobot is loaded.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pirl_jax.recipe.ranges import ASCENDING, RANGES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "settings.md"
HEAD = """\
# Settings, field by field

Each setting that this project adds to LeRobot's: in the JSON of `--config_path`, or behind it as
`--algorithm.noise.level=0.05`. [How settings work](../configuration.md) says what comes before what, and what
of LeRobot's own is obeyed. A value outside its range ends the command in one line, before anything starts.
The page is made by `python docs/settings.py --write` of the config classes; a test fails when it is not
today's.
"""
RUN = "bridge/plugin/recipe_config.py:PiRLConfig"
RECIPE = "pirl_jax/recipe/recipe.py:Recipe"
ENVIRONMENTS = {
    "env (both types)": "bridge/plugin/actor_settings.py:ActorSettings",
    "env.type=chunked_gym": "bridge/plugin/gym_config.py:ChunkedGymConfig",
    "env.type=libero": "bridge/plugin/libero_config.py:LiberoConfig",
}
WARM_START = "bridge/settings/sft_config.py:SFTConfig"

_WORDS = {"int": "integer", "float": "number", "str": "text", "bool": "true or false", "None": "null"}
_LEROBOTS = ("ActorLearnerConfig", "ConcurrencyConfig")


@dataclass(frozen=True)
class Setting:
    """A field of a config class as its source has it."""

    name: str
    annotation: ast.expr
    default: ast.expr
    effect: str
    """Its docstring; "" without one."""


@dataclass(frozen=True)
class Section:
    """A config class: what its docstring says first, and its settings in their order."""

    file: str
    summary: str
    settings: tuple[Setting, ...]


@cache
def module(file: str) -> ast.Module:
    """Return a file of this project as a syntax tree."""
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def section(place: str) -> Section:
    """Return a class's settings.

    Args:
        place: "file:class", the file relative to the project.
    """
    file, _, name = place.partition(":")
    (cls,) = [node for node in module(file).body if isinstance(node, ast.ClassDef) and node.name == name]
    settings = []
    for node, after in zip(cls.body, [*cls.body[1:], None]):
        if not isinstance(node, ast.AnnAssign) or node.value is None or not isinstance(node.target, ast.Name):
            continue
        effect = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            effect = str(after.value.value)
        annotation, default = _resolved(file, node.annotation), _resolved(file, node.value)
        settings.append(Setting(node.target.id, annotation, default, effect))
    return Section(file, (ast.get_docstring(cls) or "").partition("\n\nRaises:")[0], tuple(settings))


def _resolved(file: str, expression: ast.expr) -> ast.expr:
    """A name that is given in the same file, or in a neighbour as ``panda.ENV_ID``, is what it stands for."""
    if isinstance(expression, ast.Attribute):
        file, name = str(Path(file).parent / f"{ast.unparse(expression.value)}.py"), expression.attr
    else:
        name = ast.unparse(expression)
    for node in module(file).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return node.value
    return expression


@cache
def _places() -> dict[str, str]:
    """Class of a section → "file:class"."""
    files = [*sorted(ROOT.glob("pirl_jax/recipe/*.py")), ROOT / "pirl_jax/run_folder/retention.py"]
    return {
        node.name: f"{name}:{node.name}"
        for name in (str(file.relative_to(ROOT)) for file in files)
        for node in module(name).body
        if isinstance(node, ast.ClassDef)
    }


def sections() -> Iterator[tuple[str, str, Section]]:
    """Iterate over title, key into ``RANGES`` and settings of each part of the page."""
    run, recipe = section(RUN), section(RECIPE)
    both = (*recipe.settings, *run.settings)
    own = tuple(setting for setting in both if ast.unparse(setting.annotation) not in _places())
    yield "algorithm", "run", Section(RUN.partition(":")[0], "The method and the run as a whole.", own)
    for setting in both:
        if place := _places().get(ast.unparse(setting.annotation)):
            yield f"algorithm.{setting.name}", setting.name, section(place)
    for title, place in ENVIRONMENTS.items():
        yield title, "env", section(place)
    yield "pirl_jax.sft", "sft", section(WARM_START)


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, key, found in sections():
        rows = [_row(key, setting) for setting in found.settings]
        table = ["| setting | type | default | range | effect |", "|---|---|---|---|---|", *rows]
        source = f"`{found.file}`"
        parts.append("\n".join([f"## {title}", "", f"{_text(found.summary)} ({source})", "", *table, ""]))
    return "\n".join(parts)


def _row(key: str, setting: Setting) -> str:
    kind = _type(setting.annotation)
    allowed = _range(key, setting)
    cells = (f"`{setting.name}`", kind, _default(setting.default), allowed, _text(setting.effect))
    return f"| {' | '.join(cells)} |"


def _type(annotation: ast.expr) -> str:
    match annotation:
        case ast.BinOp():
            return f"{_type(annotation.left)} or {_type(annotation.right)}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            several = isinstance(choices, ast.Tuple)
            return "a choice" if several else f"`{ast.literal_eval(choices)}`"
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[first, ast.Constant()])):
            return f"list of {_type(first)}s"
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[first, *others])):
            return f"{len(others) + 1} {_type(first)}s"
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, value])):
            return f"name → {_type(value)}"
        case ast.Subscript(value=ast.Name(id="list"), slice=value):
            return f"list of {_type(value)}s"
        case ast.Name(id=name) if name in _LEROBOTS:
            return f"LeRobot's `{name}`"
        case ast.Name(id="Retention"):
            return "as `algorithm.checkpoint`"
    word = ast.unparse(annotation)
    return _WORDS.get(word, "any" if word == "Any" else f"`{word}`")


def _range(key: str, setting: Setting) -> str:
    match setting.annotation:
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=choices)):
            return ", ".join(f"`{ast.literal_eval(choice)}`" for choice in choices)
    allowed = str(RANGES.get(key, {}).get(setting.name, "")).replace("≥ -inf", "finite")
    return f"{allowed}, ascending" if (key, setting.name) in ASCENDING else allowed


def _default(value: ast.expr) -> str:
    """As JSON has it; "" where it is a section of its own."""
    match value:
        case ast.Constant(value=bool() | None):
            return {True: "`true`", False: "`false`", None: "`null`"}[value.value]
        case ast.Constant(value=str()):
            return f"`{value.value}`"
        case ast.Tuple():
            return f"`[{', '.join(ast.unparse(each) for each in value.elts)}]`"
        case ast.Call(func=ast.Name(id="field"), keywords=[ast.keyword(value=factory)]):
            return _default(factory)
        case ast.Lambda(body=ast.Call(keywords=keywords)):
            values = ", ".join(f'"{each.arg}": {ast.unparse(each.value)}' for each in keywords)
            return f"`{{{values}}}`".replace("'", '"')
        case ast.Lambda():
            return f"`{ast.unparse(value.body)}`".replace("'", '"')
        case ast.Name(id="dict"):
            return "`{}`"
        case ast.Name():
            return ""
    return f"`{ast.unparse(value)}`"


def _text(docstring: str) -> str:
    """A docstring as a cell: one line, single backticks, links to pages, nothing that ends the cell."""
    line = " ".join(docstring.split()).replace("``", "`").replace("|", "\\|").replace("None", "null")
    return re.sub(r"docs/(\w+)\.md", r"[\1.md](../\1.md)", line)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page())
