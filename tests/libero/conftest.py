"""LIBERO with the assets this machine has: the tests of this folder need them, and skip without."""

import os

import pytest
from assets import point_libero_at_assets


@pytest.fixture(scope="session", autouse=True)
def libero_assets(tmp_path_factory):
    before = os.environ.get("LIBERO_CONFIG_PATH")
    if problem := point_libero_at_assets(tmp_path_factory.mktemp("libero")):
        pytest.skip(problem)
    yield
    if before is None:
        os.environ.pop("LIBERO_CONFIG_PATH", None)
