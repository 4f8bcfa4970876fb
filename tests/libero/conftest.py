"""LIBERO with the assets that this machine has; without any, the tests that render skip and say why."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[3] / "shared" / "libero" / "libero_assets"
"""Stand-in assets for development, where they lie beside the repository."""


@pytest.fixture(scope="session")
def libero_environment(tmp_path_factory) -> dict[str, str]:
    """Return the environment variables with which a process finds LIBERO's configuration and assets."""
    from bridge.evaluate.benchmark import check_configured, package_root

    if importlib.util.find_spec("libero") is None:
        pytest.skip("LIBERO is not installed: pip install 'pirl-jax[libero]'")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.setdefault("MUJOCO_GL", "egl")
    if "LIBERO_CONFIG_PATH" in os.environ:
        check_configured()
        return environment
    if not PACK.is_dir():
        pytest.skip("LIBERO has no assets here: set LIBERO_CONFIG_PATH after pirl-libero-setup")
    # hf-libero looks for assets in the home folder only: these processes get one of their own.
    home = tmp_path_factory.mktemp("home")
    (home / ".cache" / "libero").mkdir(parents=True)
    (home / ".cache" / "libero" / "assets").symlink_to(PACK)
    root = package_root()
    paths = {"benchmark_root": root, "bddl_files": root / "bddl_files", "init_states": root / "init_files"}
    lines = [f"{name}: '{path}'\n" for name, path in {**paths, "datasets": home, "assets": PACK}.items()]
    (home / "config.yaml").write_text("".join(lines))
    environment.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # compiled shaders and fonts stay
    return environment | {"LIBERO_CONFIG_PATH": str(home), "HOME": str(home)}
