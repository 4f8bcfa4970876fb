"""What a command's output says in the end."""

import pytest

from pirl_jax.files import last_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\n\n", "b"),
        (
            "a\nerror: `algorithm`: no value:\n  algorithm.x\n    must be\n",
            "error: `algorithm`: no value: algorithm.x must be",
        ),
        ("error: one\nerror: two", "error: two"),
        ("error: long ago\n" + "line\n" * 20, "line"),
        ("", "(nothing)"),
    ],
)
def test_the_error_or_the_last_line_is_told_in_one(text, line):
    assert last_line(text) == line
