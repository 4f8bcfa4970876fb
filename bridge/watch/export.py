"""A run in one HTML file."""

from __future__ import annotations

from bridge.watch.html_file import PAGE, html_file
from bridge.watch.run import Run
from bridge.watch.server import SCRIPTS, STYLES


def export(run: Run) -> str:
    """Return the page with the run as it stands now; videos and reports stay links from the run's folder."""
    left = None
    while (rest := run.read()) and rest != left:
        left = rest
    styles, scripts = ([PAGE / name for name in names] for names in (STYLES, SCRIPTS))
    return html_file(PAGE / "index.html", styles, scripts, run.news())
