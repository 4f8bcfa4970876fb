"""The run's page in one file, opened where there is somebody to see it."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

from bridge.watch.export import export
from bridge.watch.run import Run
from pirl_jax.files import write_text


def show(run: Path, file: Path) -> str:
    """Write the page of a run to a file, open it if there is a desktop, and say which it was.

    Args:
        run: Its folder.
        file: Ends in ``.html``.
    """
    write_text(file, export(Run(run)))
    address = file.resolve().as_uri()
    if has_desktop() and webbrowser.open(address):
        return f"the run's page is open in your browser: {address}"
    return f"the run's page, for a browser: {address}"


def has_desktop() -> bool:
    """Tell whether a browser would have a screen: without one Python takes over the terminal with another."""
    if sys.platform.startswith("linux"):
        return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return True
