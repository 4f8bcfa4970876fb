"""README.md is short, has one picture of the result, and leads to pages and headings that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
ABROAD = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
"""Pages that the site does not have, whose links its build does not check."""


def links(page):
    return [one or other for one, other in LINK.findall(page.read_text())]


def test_it_is_read_in_a_few_minutes_and_has_one_picture():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert len(re.findall(r"!\[|<img ", text)) == 1


@pytest.mark.parametrize("page", ABROAD, ids=lambda page: page.name)
def test_its_links_lead_to_files_of_the_checkout(page):
    local = [link.partition("#")[0] for link in links(page) if not link.startswith("https://")]
    assert [link for link in local if not (ROOT / link).exists()] == []
    assert local or page.name != "README.md"


def test_it_leads_to_every_part_of_the_site():
    parts = {"tutorial/index.md", "how_to/index.md", "reference/index.md", "architecture.md", "results.md"}
    wanted = {f"docs/{part}" for part in (*parts, "troubleshooting.md", "changelog.md")}
    assert wanted <= set(links(ROOT / "README.md"))
