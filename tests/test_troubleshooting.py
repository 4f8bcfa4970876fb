"""docs/troubleshooting.md says what our commands say: each row's words stand in the test that it names."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "troubleshooting.md"
ROW = re.compile(r"^\| (`.*`) \| .* \| `(.+)::(\w+)` \|$")


def rows():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    found = [ROW.match(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return [match.groups() for match in found if match]


def strings(path, name):
    """The text of a test function, of its parameters and of the constants beside it, as one string."""
    tree = ast.parse(path.read_text())
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
    assert tests, f"{path} has no test {name}"
    nodes = [*tests, *(node for node in tree.body if isinstance(node, ast.Assign))]
    constants = [node.value for root in nodes for node in ast.walk(root) if isinstance(node, ast.Constant)]
    return "\n".join(str(constant).replace("\\", "") for constant in constants)


@pytest.mark.parametrize(("seen", "file", "name"), rows())
def test_what_the_page_quotes_is_what_a_test_produces(seen, file, name):
    text = strings(TESTS / file, name)
    for quoted in re.findall(r"`([^`]+)`", seen):
        assert quoted.strip() in text, quoted
