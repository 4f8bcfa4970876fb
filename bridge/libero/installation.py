"""Where LIBERO keeps its files: the config file it would ask about, and the assets.

The ``libero`` package asks questions on stdin when it is imported without a config file, and ignores the
``assets`` entry of that file. Here the file is written without questions, and the entry counts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import shutil
import warnings
from pathlib import Path

import yaml

ASSET_FOLDERS = (
    "articulated_objects",
    "scenes",
    "stable_hope_objects",
    "stable_scanned_objects",
    "textures",
    "turbosquid_objects",
)
"""What a complete assets folder holds."""

SETUP = "pirl-libero-setup"

_HUB_RECORDS = ".cache"
"""What the hub's client keeps in a folder that it downloads to."""
_MACROS = ("private macro file", "scripts/setup_macros.py")
"""In what robosuite says, as a warning and twice, of a file that nobody needs."""

log = logging.getLogger(__name__)


class LiberoError(ValueError):
    """LIBERO cannot run here; the message names what is missing and the command that fixes it."""


def package_root() -> Path:
    """Return the folder of the ``libero.libero`` package, found without importing it.

    Raises:
        LiberoError: It is not installed.
    """
    spec = importlib.util.find_spec("libero")
    for location in (spec.submodule_search_locations or []) if spec else []:
        root = Path(location) / "libero"
        if (root / "bddl_files").is_dir():
            return root
    raise LiberoError("LIBERO is not installed. Run: pip install 'pirl-jax[libero]'")


def config_file() -> Path:
    """Return the path of LIBERO's config file, which need not exist."""
    return Path(os.environ.get("LIBERO_CONFIG_PATH", Path.home() / ".libero")) / "config.yaml"


def cached_assets() -> Path:
    """Return where LIBERO's own download goes."""
    return Path.home() / ".cache" / "libero" / "assets"


def write_config(assets: Path | None = None) -> Path:
    """Write the config file that LIBERO's questions would have led to; returns its path.

    Args:
        assets: Folder of the assets. None keeps what an existing file says, else LIBERO's default. So does
            the folder of its data sets.
    """
    root, path = package_root(), config_file()
    old = read_config() if path.exists() else {}
    paths = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": old.get("datasets", root.parent / "datasets"),
        "assets": assets.resolve() if assets else old.get("assets", root / "assets"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")  # actors may start at the same time
    partial.write_text(yaml.safe_dump({name: str(value) for name, value in paths.items()}), encoding="utf-8")
    partial.replace(path)
    return path


def read_config() -> dict[str, str]:
    """Return the config file's entries.

    Raises:
        LiberoError: It is no mapping of names to paths.
    """
    path = config_file()
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        entries = None
    if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
        raise LiberoError(f"{path} is not a config file of LIBERO. Delete it and run: {SETUP}")
    return entries


def clear_remains(folder: Path) -> None:
    """Remove a folder in which a download that failed has left no asset; any other stays."""
    if folder.is_symlink() or not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= {_HUB_RECORDS}:
        shutil.rmtree(folder)


def missing_assets(folder: Path) -> list[str]:
    """Return which of the assets' folders are not there."""
    return [name for name in ASSET_FOLDERS if not (folder / name).is_dir()]


def task_folders() -> dict[str, Path]:
    """Return the folders of what LIBERO plays, as its config file says: ``bddl_files`` and ``init_states``.

    Raises:
        LiberoError: The file names folders that do not exist.
    """
    entries = read_config()
    for name in ("bddl_files", "init_states"):
        if name not in entries or not Path(entries[name]).is_dir():
            raise LiberoError(
                f"{config_file()} says that {name} is {entries.get(name)!r}, which does not exist. "
                f"Run: {SETUP}"
            )
    return {name: Path(entries[name]) for name in ("bddl_files", "init_states")}


def prepare() -> None:
    """Make ``import libero`` free of questions, and its config file's ``assets`` count, in this process.

    Raises:
        LiberoError: LIBERO is not installed, or its config file names files that do not exist.
    """
    root = package_root()
    if not config_file().exists():
        log.info("Wrote LIBERO's config file: %s", write_config())
    task_folders()
    entries = read_config()
    logging.getLogger("robosuite_logs").addFilter(_is_no_macro_advice)
    import libero.libero as package

    # Looked up at every use; LIBERO itself fills it by looking beside the package, then in its cache.
    assets = Path(entries.get("assets", root / "assets"))
    if not missing_assets(assets):
        package._assets_path_cache = str(assets)


def _is_no_macro_advice(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in _MACROS)


def find_assets() -> Path:
    """Return the folder of the assets, downloaded by LIBERO itself where there is none.

    Raises:
        LiberoError: There is none, and the download failed.
    """
    prepare()
    folder, said = _libero_finds()
    if missing := missing_assets(folder):
        clear_remains(cached_assets())
        if reason := _why_no_download(said):
            raise LiberoError(
                f"LIBERO's assets are not here, and the Hugging Face Hub does not provide them ({reason}). "
                f"With access to it run: {SETUP}; without, copy them here and run: {SETUP} --assets FOLDER"
            )
        raise LiberoError(
            f"LIBERO's assets are incomplete: {folder} lacks {', '.join(missing)}. With access to the "
            f"Hugging Face Hub run: {SETUP}; without, copy them here and run: {SETUP} --assets FOLDER"
        )
    return folder


def _libero_finds() -> tuple[Path, str]:
    """Return the folder that LIBERO itself finds or downloads, and what it prints meanwhile."""
    from libero.libero import get_assets_path

    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")
        return Path(get_assets_path()), said.getvalue()


def _why_no_download(said: str) -> str | None:
    """Return the reason among the lines that LIBERO prints of a download that failed; None: it tried none."""
    mark = "Could not download assets from HuggingFace Hub: "
    reasons = [line.partition(mark)[2] for line in said.splitlines() if mark in line]
    return reasons[0].rstrip(".") if reasons else None
