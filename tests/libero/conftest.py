"""LIBERO with the assets this machine has: the tests of this folder need them, and skip without."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

DEVELOPMENT_ASSETS = Path(__file__).resolve().parents[3] / "shared" / "libero" / "libero_assets"


@pytest.fixture(scope="session", autouse=True)
def libero_config(tmp_path_factory):
    """Point LIBERO at its assets, in this process and those it starts; yields the config's folder."""
    if importlib.util.find_spec("libero") is None:
        pytest.skip("LIBERO is not installed: pip install 'pirl-jax[libero]'")
    from bridge.libero import installation

    before = os.environ.get("LIBERO_CONFIG_PATH")
    if before is None and DEVELOPMENT_ASSETS.is_dir():
        os.environ["LIBERO_CONFIG_PATH"] = str(tmp_path_factory.mktemp("libero"))
        installation.write_config(DEVELOPMENT_ASSETS)
    elif not installation.config_file().exists():
        pytest.skip("LIBERO has no assets here: run pirl-libero-setup, or set LIBERO_CONFIG_PATH")
    installation.prepare()
    yield installation.config_file().parent
    if before is None:
        os.environ.pop("LIBERO_CONFIG_PATH", None)
