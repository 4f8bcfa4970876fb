"""docs/reference/settings.md is made of today's config classes, and says of each field what it does."""

import dataclasses
import json

import pytest
import settings as page

from pirl_jax.recipe import LaunchConfig, Recipe, SecurityConfig
from pirl_jax.run_folder.retention import Retention

SECTIONS = {title: found for title, _, found in page.sections()}
CLASSES = {
    f"algorithm.{field.name}": type(getattr(Recipe(), field.name))
    for field in dataclasses.fields(Recipe)
    if dataclasses.is_dataclass(getattr(Recipe(), field.name))
} | {
    "algorithm.launch": LaunchConfig,
    "algorithm.security": SecurityConfig,
    "algorithm.checkpoint": Retention,
}


def row_of(title: str, name: str) -> list[str]:
    part = page.PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    (row,) = [line for line in part.splitlines() if line.startswith(f"| `{name}` |")]
    return [cell.strip() for cell in row.split(" | ")]


def test_the_page_is_made_of_todays_classes():
    assert page.PAGE.read_text() == page.page(), "run: python docs/settings.py --write"


def test_no_section_is_missing():
    assert set(CLASSES) == {title for title in SECTIONS if title.startswith("algorithm.")}


@pytest.mark.parametrize("title", CLASSES)
def test_a_section_has_every_field_of_its_class_with_its_default(title):
    """The page is read from source; here the classes themselves are asked."""
    config = CLASSES[title]()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        default = row_of(title, field.name)[2].strip("`")
        assert default == (value if isinstance(value, str) else default)
        if not isinstance(value, str):
            assert json.loads(default) == json.loads(json.dumps(value)), field.name


@pytest.mark.parametrize("title", SECTIONS)
def test_each_setting_says_what_it_does(title):
    assert [setting.name for setting in SECTIONS[title].settings if not setting.effect] == []
    assert SECTIONS[title].summary


def test_choices_and_ranges_are_there():
    assert row_of("algorithm.noise", "mode")[3] == "`terminal`, `flow_sde`, `flow_cps`, `flow_noise`"
    assert row_of("algorithm.noise", "std_range")[3] == "above 0, ascending"
    assert row_of("algorithm", "max_actors")[1:4] == ["integer", "`64`", "≥ 1"]
    assert row_of("algorithm.checkpoint", "keep_last")[3] == "≥ 0"
