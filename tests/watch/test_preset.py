"""Which preset a run is closest to."""

import dataclasses
import json

import pytest

from bridge.watch.preset import DEFAULTS, PRESETS, Difference, closest, flat
from pirl_jax.recipe import Recipe


def settings(name=None, **changes):
    """The algorithm section of a run with a preset, and some settings of its own."""
    of_run = flat(json.loads(json.dumps(dataclasses.asdict(Recipe()))))
    of_run |= flat(json.loads((PRESETS / name).read_text())) if name else {}
    return {**of_run, **changes}


@pytest.mark.parametrize("name", sorted(path.name for path in PRESETS.glob("*.json")))
def test_a_run_with_a_preset_is_recognised_by_its_settings(name):
    found = closest(settings(name))
    assert (found.name, found.differences) == (name, ())


def test_what_differs_is_named_with_both_values():
    found = closest(
        settings("pirl_paper.json", **{"optimizer.lr": 1e-5, "noise.level": 0.3, "max_actors": 8})
    )
    assert found.name == "pirl_paper.json"
    assert set(found.differences) == {
        Difference("optimizer.lr", "1e-05", "5e-06"),
        Difference("noise.level", "0.3", json.dumps(Recipe().noise.level)),
    }


def test_without_presets_a_run_is_compared_with_the_defaults(tmp_path):
    found = closest(settings(**{"rollout.max_chunks": 9}), tmp_path)
    assert found.name == DEFAULTS
    assert [one.name for one in found.differences] == ["rollout.max_chunks"]
