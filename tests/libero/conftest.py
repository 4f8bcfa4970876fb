"""LIBERO with the assets this machine has: the tests of this folder need them, and skip without."""

import os
from pathlib import Path

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


@pytest.fixture(scope="module", autouse=True)
def no_actor():
    """Other folders' tests import LeRobot's actor, by which a process is taken for one."""
    from bridge.plugin import transport

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "is_actor", lambda: False)
        yield


@pytest.fixture(scope="session")
def libero_environment(libero_assets, tmp_path_factory) -> dict[str, str]:
    """Environment variables with which an unmodified ``lerobot-eval`` finds the same assets."""
    from bridge.libero import installation

    # It ignores LIBERO's config file and looks in the home folder only: it gets one of its own.
    home = tmp_path_factory.mktemp("home")
    (home / ".cache" / "libero").mkdir(parents=True)
    (home / ".cache" / "libero" / "assets").symlink_to(installation.find_assets())
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOME": str(home)}
    environment.setdefault("MUJOCO_GL", "egl")
    environment.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # compiled shaders and fonts stay
    return environment
