"""The installed LIBERO: where it is, which tasks its suites have, and whether it has been set up.

Nothing here imports it: its first import asks questions on the terminal, and its package imports torch.
"""

from __future__ import annotations

import importlib.util
import re
from importlib import metadata

from bridge.libero.installation import config_file, package_root, task_folders
from bridge.libero.suites import SUITES
from pirl_jax.files import digest_of_folder

MATRIX = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
"""The four suites that papers report."""

PACKAGES = ("lerobot", "hf-libero", "mujoco", "robosuite", "torch")


def check_configured() -> None:
    """Raise unless LIBERO has its configuration file, without which its import asks for one.

    Raises:
        ValueError: There is none, or it leads to files that are gone.
    """
    if not config_file().is_file():
        raise ValueError(
            f"LIBERO has not been set up: {config_file()} is missing. "
            "Run pirl-libero-setup, or set LIBERO_CONFIG_PATH to the folder that holds it."
        )
    task_folders()


def contents() -> dict[str, str]:
    """Return the hash of all suites' tasks and of their initial states, by LIBERO's names of their folders.

    Raises:
        ValueError: LIBERO's configuration file leads to files that are gone.
    """
    return {name: digest_of_folder(folder) for name, folder in task_folders().items()}


def instructions(suite: str) -> list[str]:
    """Return what the suite's tasks ask for, by task id.

    Raises:
        ValueError: LIBERO is not installed, or has no such suite.
    """
    file = package_root() / "benchmark" / "libero_suite_task_map.py"
    spec = importlib.util.spec_from_file_location("_libero_suite_task_map", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} cannot be loaded; reinstall hf-libero.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = {known: module.libero_task_map[known] for known in SUITES if known in module.libero_task_map}
    if suite not in names:
        raise ValueError(f"LIBERO has no suite {suite!r}; choose from {', '.join(names)}.")
    return [re.sub(r"^[A-Z_]+SCENE\d+_", "", name).replace("_", " ") for name in names[suite]]


def versions() -> dict[str, str]:
    """Return the installed versions of what a score depends on.

    Raises:
        ValueError: A package is not installed.
    """
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError as error:
            raise ValueError(
                f'{package} is not installed. Install it with: pip install "pirl-jax[libero]"'
            ) from error
    return found
