"""Everything in this folder is slow."""

import pathlib

import pytest

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The hook is given what was collected elsewhere, too."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
