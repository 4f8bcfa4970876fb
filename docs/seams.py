"""Write the seams into LeRobot as a table: the one in ``docs/architecture.md``.

python docs/seams.py            # prints it
python docs/seams.py --write    # puts it into the page
"""

from __future__ import annotations

import sys
from pathlib import Path

from bridge.plugin.seams import SEAMS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"
BEGIN, END = "<!-- seams: made by docs/seams.py -->\n", "<!-- /seams -->\n"


def table() -> str:
    """Return a row for each seam: where it rests, what is put in place, what breaks without."""
    rows = ["| seam | rests on | in its place | without it |", "|---|---|---|---|"]
    for seam in SEAMS:
        places = dict.fromkeys(place.partition("(")[0].replace(":", ".") for place in seam.expected)
        rests_on = "<br>".join(f"`{place}`" for place in places)
        rows.append(f"| {seam.name} | {rests_on} | {seam.instead} | {seam.without} |")
    return "\n".join([*rows, ""])


def page_with_table(page: str) -> str:
    """Return the page with today's table between its marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page_with_table(PAGE.read_text()))
    else:
        print(table())
