"""Write what every metric means as a page: ``docs/metrics.md``.

python docs/metrics.py            # prints it
python docs/metrics.py --write    # writes the page
"""

from __future__ import annotations

import sys
from pathlib import Path

from pirl_jax.glossary import SECTIONS, Entry

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
HEAD = """\
# Metrics

What a run writes to `metrics.jsonl` and its trackers, a line an update and a line an evaluation: what each
number is, what it looks like in a run that learns, and what to do where it looks otherwise. `pirl-watch`
shows the same text beside its charts ([watching.md](watching.md)). The page is made by
`python docs/metrics.py --write` of `pirl_jax/glossary/`; a test fails for a metric without an entry, and for
an entry without a metric.

Each row also has `step`, the updates that are done, and `time`, in Unix seconds. `<task>` is
`<suite>_<number>` for LIBERO; `<part>` is a part of the policy that is trained, as `head`.
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, entries in SECTIONS.items():
        rows = [_row(entry) for entry in entries]
        parts.append(
            "\n".join(
                [
                    f"## {title}",
                    "",
                    "| metric | what it is | healthy | otherwise |",
                    "|---|---|---|---|",
                    *rows,
                    "",
                ]
            )
        )
    return "\n".join(parts)


def _row(entry: Entry) -> str:
    unit = f" ({entry.unit})" if entry.unit else ""
    return f"| `{entry.name}` | {entry.meaning}{unit} | {entry.healthy} | {entry.remedy} |"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page())
