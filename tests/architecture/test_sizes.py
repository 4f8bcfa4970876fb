"""How large files and functions may grow before one looks for the second noun in them."""

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    path: path.read_text().splitlines()
    for package in ("pirl_jax", "bridge")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def test_no_file_is_longer_than_400_lines_and_half_of_them_are_below_120():
    lengths = {path: len(lines) for path, lines in FILES.items() if path.name != "__init__.py"}
    assert {str(path) for path, length in lengths.items() if length > 400} == set()
    assert statistics.median(lengths.values()) <= 120


def test_no_function_is_longer_than_80_lines():
    long = [
        f"{path}:{node.lineno} {node.name}"
        for path, lines in FILES.items()
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= 80
    ]
    assert not long


def test_the_top_of_the_learner_has_at_most_14_files():
    assert len(list((ROOT / "pirl_jax").glob("*.py"))) <= 14


def test_only_the_loop_and_the_commands_take_the_whole_recipe():
    """Every other function names the sections that it reads."""
    takers = {
        str(path.relative_to(ROOT))
        for path, lines in FILES.items()
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.FunctionDef)
        for argument in (*node.args.args, *node.args.kwonlyargs)
        if argument.annotation is not None and ast.unparse(argument.annotation) in ("Recipe", "PiRLConfig")
    }
    commands = {"pirl_jax/learner.py", "pirl_jax/doctor.py"}
    assert {path for path in takers - commands if not path.startswith("pirl_jax/training/")} == ACTOR


ACTOR = {"bridge/plugin/algorithm.py", "bridge/plugin/processors.py"}
"""LeRobot makes the actor's algorithm with its whole config."""
