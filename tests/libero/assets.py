"""LIBERO's assets here: those it is set up with, else the development assets beside the repository."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

CONFIG = "LIBERO_CONFIG_PATH"
DEVELOPMENT_ASSETS = Path(__file__).resolve().parents[3] / "shared" / "libero" / "libero_assets"


def point_libero_at_assets(folder: Path | None = None) -> str | None:
    """Set LIBERO up for this process and those it starts; returns why that is impossible, if it is.

    Args:
        folder: For a config file of LIBERO's, where one is needed; None makes a temporary one.
    """
    if importlib.util.find_spec("libero") is None:
        return "LIBERO is not installed: pip install 'pirl-jax[libero]'"
    from bridge.libero import installation

    if CONFIG not in os.environ and DEVELOPMENT_ASSETS.is_dir():
        os.environ[CONFIG] = str(folder or tempfile.mkdtemp(prefix="libero"))
        installation.write_config(DEVELOPMENT_ASSETS)
    elif not installation.config_file().exists():
        return "LIBERO has no assets here: run pirl-libero-setup, or set LIBERO_CONFIG_PATH"
    installation.prepare()
    return None


def libero_config() -> dict[str, str]:
    """Return the environment variable by which a fork of an older process finds the assets too."""
    return {CONFIG: os.environ[CONFIG]} if CONFIG in os.environ else {}
