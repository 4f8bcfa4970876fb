"""A run in one HTML file that needs nothing else: to send, to keep, to attach."""

from __future__ import annotations

import base64
import hashlib
import json

from bridge.watch.run import Run
from bridge.watch.server import PAGE, SCRIPTS, STYLES


def export(run: Run) -> str:
    """Return the page with the run as it stands now; videos and reports stay links from the run's folder."""
    left = None
    while (rest := run.read()) and rest != left:
        left = rest
    news = json.dumps(run.news(), allow_nan=False)
    # No text in a script element can end it but this.
    data = news.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    style, script = (_joined(names) for names in (STYLES, SCRIPTS))
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>\n'
    tail = f'<script type="application/json" id="exported">{data}</script>\n<script>{script}</script>\n'
    return _replaced(_replaced(page, "head", head), "scripts", tail)


def _joined(names: tuple[str, ...]) -> str:
    return "\n".join((PAGE / name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _replaced(page: str, mark: str, text: str) -> str:
    """Put text in the place of what stands between two marks of the page."""
    before, rest = page.split(f"<!-- {mark} -->")
    return before + text + rest.split(f"<!-- /{mark} -->")[1]
