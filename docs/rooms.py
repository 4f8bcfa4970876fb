"""Draw the rooms of the house from the code's own imports: the picture in ``docs/architecture.md``.

    python docs/rooms.py            # prints it
    python docs/rooms.py --write    # puts it into the page

A room is a folder of ``pirl_jax/`` or ``bridge/``, or a file that stands there alone. An arrow runs from a
room to one that it imports, inside functions too. Standard library only.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: made by docs/rooms.py -->\n", "<!-- /rooms -->\n"

COMMANDS = ("pirl_jax/learner", "pirl_jax/sft", "pirl_jax/doctor", "pirl_jax/serve")
"""They put the parts together, import from everywhere, and are left out of the picture."""
GROUND = (
    *("pirl_jax/typing", "pirl_jax/files", "pirl_jax/trees", "pirl_jax/run_folder"),
    *(
        "pirl_jax/rows",
        "pirl_jax/placement",
        "pirl_jax/linear",
        "pirl_jax/optim",
        "pirl_jax/command",
        "pirl_jax/console",
        "bridge/command",
        "pirl_jax/ending",
    ),
)
"""Small files that anything may stand on; left out of the picture as well."""
EPISODE = (
    ("bridge/plugin", "bridge/wire", "acts, sends"),
    ("bridge/wire", "pirl_jax/rollout", "received"),
    ("pirl_jax/rollout", "pirl_jax/update", "scored, collected"),
    ("pirl_jax/update", "pirl_jax/training", "learned from"),
    ("pirl_jax/training", "bridge/weights", "saved"),
    ("pirl_jax/training", "bridge/plugin", "published"),
)
"""The way of an episode, room by room."""


def arrows() -> dict[str, set[str]]:
    """Return for every room the rooms that it imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for package in ("pirl_jax", "bridge"):
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            room = package if parts[-1] == "__init__" and len(parts) == 2 else "/".join(parts[:2])
            for module in _imported(ast.parse(file.read_text())):
                names = module.split(".")
                other = "/".join(names[:2])
                if names[0] in ("pirl_jax", "bridge") and len(names) > 1 and other != room:
                    found[room].add(other)
    return dict(found)


def _imported(tree: ast.Module) -> list[str]:
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    return modules


def picture() -> str:
    """Return the rooms and arrows as a Mermaid flowchart; thick arrows are the way of an episode."""
    drawn = {
        room: sorted(others - set(COMMANDS) - set(GROUND))
        for room, others in sorted(arrows().items())
        if room not in (*COMMANDS, *GROUND)
    }
    rooms = sorted({*drawn, *(other for others in drawn.values() for other in others)})
    lines = ["```mermaid", "flowchart TD"]
    for package in ("bridge", "pirl_jax"):
        lines.append(f"  subgraph {package}")
        inside = [room for room in rooms if room.startswith(f"{package}/")]
        lines += [f"    {_id(room)}[{room.removeprefix(package)[1:]}]" for room in inside]
        lines.append("  end")
    lines += [f"  {_id(room)} --> {_id(other)}" for room, others in drawn.items() for other in others]
    lines += [f'  {_id(room)} == "{what}" ==> {_id(other)}' for room, other, what in EPISODE]
    return "\n".join([*lines, "```", ""])


def _id(room: str) -> str:
    return room.replace("/", "_")


def page_with_picture(page: str) -> str:
    """Return the page with today's picture between its marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + picture() + END + rest.split(END)[1]


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page_with_picture(PAGE.read_text()))
    else:
        print(picture())
