"""What a run takes of host and disk is known before it starts, and refused where it is too much."""

import re
import shutil
from collections import namedtuple

import pytest
from planned import plan

from pirl_jax.run_folder.retention import Retention
from pirl_jax.training import kept, storage
from pirl_jax.training.budget import GIB, Budget
from pirl_jax.training.parts import capacity_of
from pirl_jax.training.plan import size_of

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("saves", "retention", "states", "exports"),
    [
        (0, Retention(), 0, 0),
        (1, Retention(), 1 + 1, 1 + 1),
        (20, Retention(), 3 + 1, 2 + 1),  # the last two and the best, and one that is being written
        (20, Retention(keep_last=0), 20 + 1, 2 + 1),
        (20, Retention(keep_last=1, keep_every=50), 1 + 4 + 1 + 1, 2 + 1),
        (20, Retention(export="every"), 3 + 1, 3 + 1),
    ],
)
def test_the_disk_holds_what_is_kept_and_what_is_being_written(saves, retention, states, exports):
    sizes = storage.checkpoint_sizes(1000, 1, saves, every=10, retention=retention)
    assert sum(sizes.values()) == 1000 * states + exports


def test_observations_beyond_the_bound_count_as_files():
    made = plan(max_staleness=1)
    rows = 2 * capacity_of(made.parts.recipe) * size_of(made.features(1))
    whole, part = storage.storage(made, 10 * rows), storage.storage(made, rows // 4)
    assert (whole.memory["encoded observations"], whole.mapped) == (rows, 0)
    assert (part.memory["encoded observations"], part.mapped) == (rows // 4, rows - rows // 4)
    assert "in files in" in "\n".join(storage.table(part))


def test_a_state_that_is_saved_takes_room(tmp_path):
    made = plan()
    saved = storage.storage(made, GIB, {"checkpoints": 5 * 2**20})
    assert saved.memory["the state that is being saved"] == size_of(made.state)
    assert re.search(r"in all +5\.00 MiB", "\n".join(storage.table(saved)))


@pytest.mark.parametrize(("left", "keep"), [(-1, "never"), (1, "always")])
def test_a_large_state_is_kept_on_a_cpu_if_run_and_actors_leave_room_for_it(monkeypatch, left, keep):
    made = plan()
    stored, size = storage.storage(made, GIB, on_cpu=True), size_of(made.state)
    assert storage.KEPT in stored.memory  # it is little
    monkeypatch.setattr(kept, "_LITTLE", 0)
    stored = storage.storage(made, GIB, on_cpu=True)
    assert storage.KEPT not in stored.memory
    taken = sum(stored.memory.values()) + 2 * GIB + 3 * GIB
    monkeypatch.setattr(storage, "allowed", lambda budget: taken + size + left)
    found, recipe = storage.settled(stored, made, device=2 * GIB, actors=3 * GIB)
    assert recipe.watchdog.keep == keep
    assert (storage.KEPT in found.memory) == (keep == "always")


def test_too_little_memory_or_disk_is_refused_with_the_remedy(tmp_path, monkeypatch):
    stored = storage.Storage({"rows": 2 * GIB}, 3 * GIB, {"checkpoints": 4 * GIB})
    free = {"memory": 100, "disk": 100}
    monkeypatch.setattr(storage, "budget_of_host", lambda: Budget(free["memory"] * GIB, "a test's machine"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free["disk"] * GIB))
    storage.check(stored, tmp_path / "not" / "there")
    with pytest.raises(ValueError, match=r"takes 101.00 GiB, and 100.00 GiB are free.*algorithm.rows_gb"):
        storage.check(stored, tmp_path, device=99 * GIB)
    free["disk"] = 3
    with pytest.raises(ValueError, match=r"checkpoints take 4.00 GiB.*algorithm.checkpoint.keep_last"):
        storage.check(stored, tmp_path)
    free["disk"] = 4
    with pytest.raises(ValueError, match=r"6.00 GiB of encoded observations.*TMPDIR"):
        storage.check(storage.Storage({}, 6 * GIB, {}), tmp_path)
