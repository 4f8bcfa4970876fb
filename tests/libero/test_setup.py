"""LIBERO is set up without a question, and what is missing is named."""

import logging
import os
import subprocess
import sys

import pytest

from bridge.libero import installation, setup

IMPORT_EVERYTHING = """
import importlib, pkgutil, bridge
for module in pkgutil.walk_packages(bridge.__path__, "bridge."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""

STOCK = """
from libero.libero import get_assets_path, get_libero_path
import lerobot.envs.libero
print(get_libero_path("assets"), get_assets_path(), sep="\\n")
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user who has never run LIBERO."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LIBERO_CONFIG_PATH", raising=False)
    return tmp_path


def run(*command):
    """Without a terminal to answer questions at: input() would fail."""
    return subprocess.run(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


@pytest.fixture(scope="module")
def assets():
    return installation.find_assets()


@pytest.mark.slow
def test_the_command_leaves_a_libero_that_lerobot_alone_can_use(assets, home):
    done = run("-m", "bridge.libero.setup", f"--assets={assets}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LIBERO is ready. Run with: export MUJOCO_GL=" in done.stdout
    assert (home / ".libero" / "first_frame.png").stat().st_size > 10_000
    stock = run("-c", STOCK)
    assert stock.returncode == 0, stock.stderr
    configured, used = stock.stdout.splitlines()[-2:]
    assert os.path.realpath(configured) == os.path.realpath(used) == os.path.realpath(assets)


def test_importing_the_package_asks_nothing(home):
    done = run("-c", IMPORT_EVERYTHING)
    assert done.returncode == 0, done.stderr
    assert (home / ".libero" / "config.yaml").exists()


def test_a_folder_that_holds_no_assets_is_refused(home, capsys):
    with pytest.raises(SystemExit, match="lacks articulated_objects"):
        setup.main([f"--assets={home}"])
    assert not (home / ".libero").exists()


def test_assets_that_are_there_already_are_not_replaced(assets, home):
    (installation.cached_assets() / "scenes").mkdir(parents=True)
    with pytest.raises(SystemExit, match="already holds assets"):
        setup.main([f"--assets={assets}"])


def test_after_a_download_that_failed_a_local_folder_can_be_given(assets, home, capsys, monkeypatch):
    """LIBERO leaves an empty folder where its download would go, and prints seven lines."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = run("-m", "bridge.libero.setup")
    assert offline.returncode == 1
    last = offline.stderr.splitlines()[-1]
    assert last.startswith("missing: LIBERO's assets are not here, and the Hugging Face Hub does not provide")
    assert last.endswith("--assets FOLDER")
    assert len((offline.stdout + offline.stderr).splitlines()) == 2
    assert not installation.cached_assets().exists()
    (installation.cached_assets() / ".cache" / "huggingface").mkdir(parents=True)  # of an earlier release
    assert setup.configure(assets) == assets
    assert installation.cached_assets().resolve() == assets.resolve()


def test_what_robosuite_says_of_a_macro_file_is_not_heard(home, caplog):
    installation.prepare()
    log = logging.getLogger("robosuite_logs")
    log.warning("No private macro file found!")
    log.warning("To setup, run: python /robosuite/scripts/setup_macros.py")
    log.warning("a joint is missing")
    assert [record.getMessage() for record in caplog.records if record.name == log.name] == [
        "a joint is missing"
    ]


def test_a_config_of_another_installation_is_named_with_its_cure(home):
    path = installation.write_config()
    path.write_text(path.read_text().replace("bddl_files", "gone"))
    with pytest.raises(installation.LiberoError, match=r"bddl_files.*pirl-libero-setup"):
        installation.prepare()
    path.write_text("[1, 2]")
    with pytest.raises(installation.LiberoError, match="not a config file"):
        installation.prepare()


def test_the_data_sets_folder_of_an_existing_config_is_kept(home):
    path = installation.write_config()
    path.write_text(path.read_text().replace(installation.read_config()["datasets"], "/data/mine"))
    installation.write_config()
    assert installation.read_config()["datasets"] == "/data/mine"


def test_a_renderer_that_does_not_work_is_not_counted(monkeypatch):
    monkeypatch.setattr(setup, "RENDERERS", ("egl", "nonsense"))
    assert setup.working_renderers() == ["egl"]
