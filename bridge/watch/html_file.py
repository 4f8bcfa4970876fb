"""A page in one HTML file that needs nothing else: to send, to keep, to attach."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "page"
"""Style and scripts of this project's pages."""


def html_file(
    template: Path, styles: Sequence[Path], scripts: Sequence[Path], data: Any, media: str = "'none'"
) -> str:
    """Return a template with styles, scripts and data in it, which may load nothing.

    Args:
        template: HTML with ``<!-- head -->…<!-- /head -->`` and ``<!-- scripts -->…<!-- /scripts -->``.
        styles: CSS files.
        scripts: JavaScript files, which find the data as JSON in the element ``exported``.
        data: JSON without nan.
        media: where films may be from, as a Content-Security-Policy says it.
    """
    # No text in a script element can end it but this.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    style, script = (
        "\n".join(path.read_text(encoding="utf-8") for path in paths) for paths in (styles, scripts)
    )
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        f"media-src {media}; base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>\n'
    tail = f'<script type="application/json" id="exported">{text}</script>\n<script>{script}</script>\n'
    page = template.read_text(encoding="utf-8")
    return _replaced(_replaced(page, "head", head), "scripts", tail)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _replaced(page: str, mark: str, text: str) -> str:
    """Put text in the place of what stands between two marks of the page."""
    before, rest = page.split(f"<!-- {mark} -->")
    return before + text + rest.split(f"<!-- /{mark} -->")[1]
