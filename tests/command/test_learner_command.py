"""What the learner's command decides before anything runs."""

from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from toy_run import RECIPE, fresh_state

import bridge.settings.resumed
from bridge.settings.learner_config import check_seed
from bridge.settings.resumed import check_place
from pirl_jax import learner
from pirl_jax.training import checkpoint


@pytest.mark.parametrize(("size", "before", "begins"), [(1, 8, 30), (8, 1, 32), (15, 1, 30), (8, 8, 30)])
def test_a_resumed_run_whose_groups_have_another_size_goes_on_with_a_whole_one(
    monkeypatch, size, before, begins
):
    """Thirty episodes are settled. Where nothing has changed, no number is left out."""
    restored = fresh_state(RECIPE).replace(episodes=jnp.int32(30))
    monkeypatch.setattr(checkpoint, "restore", lambda folder, start: restored)
    changed = {"algorithm.rollout.group_size": (before, size)} if size != before else {}
    monkeypatch.setattr(bridge.settings.resumed, "changes", lambda cfg: changed)
    rollout = SimpleNamespace(group_size=size)
    cfg = SimpleNamespace(checkpoint_path="run", algorithm=SimpleNamespace(rollout=rollout))
    assert int(learner.resumed(cfg, fresh_state(RECIPE)).episodes) == begins


def test_counters_since_the_start_are_not_taken_for_those_of_an_update():
    stats = {"messages": 3, "dropped": {"gap": 1}}
    assert learner.service_metrics(stats) == {"actor/messages": 3, "actor/dropped/gap": 1}


@pytest.mark.parametrize("seed", [None, -1, 2**32])
def test_a_seed_from_which_nothing_can_be_drawn_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed must be a number from 0 to .*; got {seed}"):
        check_seed(seed)


def test_a_run_without_a_checkpoint_says_so_and_leaves_nothing_in_the_way(tmp_path):
    for rows, stays in (("", False), ('{"step": 1}\n', True)):
        output_dir = tmp_path / f"run{stays}"
        output_dir.mkdir()
        (output_dir / "metrics.jsonl").write_text(rows)
        assert learner.last_words(output_dir).startswith("done: there is no checkpoint")
        assert output_dir.exists() == stays
    (tmp_path / "run" / "checkpoints" / "last").mkdir(parents=True)
    assert learner.last_words(tmp_path / "run") == f"done: {tmp_path / 'run' / 'checkpoints' / 'last'}"


def test_a_checkpoint_of_one_run_is_not_gone_on_with_in_the_folder_of_another(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "checkpoints" / "000002").mkdir(parents=True)
    copied = tmp_path / "b" / "checkpoints" / "000002"
    cfg = SimpleNamespace(resume=True, checkpoint_path=copied, output_dir=tmp_path / "a")
    with pytest.raises(ValueError, match=f"Give --output_dir={tmp_path / 'b'}, where it lies"):
        check_place(cfg)
    for output_dir in ("b", "new"):
        check_place(SimpleNamespace(resume=True, checkpoint_path=copied, output_dir=tmp_path / output_dir))
    check_place(SimpleNamespace(resume=False, checkpoint_path=None, output_dir=tmp_path / "a"))
