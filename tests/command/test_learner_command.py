"""What the learner's command decides before anything runs."""

import json
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from by_recipe import make_recipe
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from toy_run import RECIPE, fresh_state

import bridge.settings.resumed
from bridge.settings.learner_config import check_seed
from bridge.settings.resumed import changes, check_place
from bridge.settings.saving import cadence_of
from pirl_jax import learner
from pirl_jax.training import checkpoint
from pirl_jax.training.budget import check_device
from pirl_jax.training.saves import Cadence


@pytest.mark.parametrize(("size", "before", "begins"), [(1, 8, 30), (8, 1, 32), (15, 1, 30), (8, 8, 30)])
def test_a_resumed_run_whose_groups_have_another_size_goes_on_with_a_whole_one(
    monkeypatch, size, before, begins
):
    """Thirty episodes are settled. Where nothing has changed, no number is left out."""
    restored = fresh_state(RECIPE).replace(episodes=jnp.int32(30))
    monkeypatch.setattr(checkpoint, "restore", lambda folder, start: restored)
    changed = {"algorithm.rollout.group_size": (before, size)} if size != before else {}
    monkeypatch.setattr(bridge.settings.resumed, "changes", lambda cfg: changed)
    cfg = SimpleNamespace(checkpoint_path="run", algorithm=make_recipe(RECIPE, group_size=size))
    assert int(learner.resumed(cfg, fresh_state(RECIPE)).episodes) == begins


@pytest.mark.parametrize(("adaptive", "goes_on_with"), [(True, 0.5), (False, RECIPE.optimizer.lr)])
def test_an_adapted_learning_rate_goes_on_only_where_it_is_still_adapted(monkeypatch, adaptive, goes_on_with):
    restored = fresh_state(RECIPE).replace(lr=jnp.float32(0.5))
    monkeypatch.setattr(checkpoint, "restore", lambda folder, start: restored)
    monkeypatch.setattr(bridge.settings.resumed, "changes", lambda cfg: {})
    recipe = make_recipe(RECIPE, adaptive_lr=adaptive, target_kl=0.1)
    cfg = SimpleNamespace(checkpoint_path="run", algorithm=recipe)
    assert float(learner.resumed(cfg, fresh_state(RECIPE)).lr) == pytest.approx(goes_on_with)


def test_a_setting_that_is_new_or_gone_is_a_change(tmp_path):
    folder = tmp_path / "pretrained_model"
    folder.mkdir()
    saved = {
        "algorithm": {"noise": {"group_scale": {"rot6d": 8.0}}},
        "env": {"train_init_states": "0:50", "name": "a"},
        "new_in_lerobot": 1,
    }
    (folder / "train_config.json").write_text(json.dumps(saved))
    now = {"algorithm": {"noise": {"group_scale": {}}}, "env": {"train_init_states": "0:2", "name": "b"}}
    cfg = SimpleNamespace(checkpoint_path=tmp_path, to_dict=lambda: now)
    assert changes(cfg) == {
        "algorithm.noise.group_scale.rot6d": (8.0, "unset"),
        "env.train_init_states": ("0:50", "0:2"),
    }
    (folder / "train_config.json").write_text(json.dumps(now))
    cfg.to_dict = lambda: saved
    assert changes(cfg)["algorithm.noise.group_scale.rot6d"] == ("unset", 8.0)


@pytest.mark.parametrize("seed", [None, -1, 2**32])
def test_a_seed_from_which_nothing_can_be_drawn_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed must be a number from 0 to .*; got {seed}"):
        check_seed(seed)


@pytest.mark.parametrize(
    ("save_freq", "due"),
    [(20_000, {10: 0, 20: 0, 3: 900}), (4, {4: 0, 8: 0, 12: 0}), (0, {}), (-1, {})],
)
def test_a_run_is_saved_often_enough_unless_it_says_how_often(save_freq, due):
    """LeRobot's own default, 20,000, means that nobody has said so."""
    cfg = TrainRLServerPipelineConfig(save_freq=save_freq)
    cadence = Cadence(**cadence_of(cfg))
    for update in range(1, 25):
        assert cadence.due(update, 0) == (due.get(update) == 0 or (save_freq == 4 and update % 4 == 0))
        assert cadence.due(update, 900) == (cadence.due(update, 0) or save_freq == 20_000)
    cfg.save_checkpoint = False
    assert not any(Cadence(**cadence_of(cfg)).due(update, 1e6) for update in range(1, 25))


def test_gpus_that_are_not_there_are_not_replaced_by_the_cpu_without_a_word(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # as pirl-launch does
    with pytest.raises(ValueError, match=r"launch.learner_devices=\[7\], and JAX finds no GPU 7\. See which"):
        check_device((7,), "algorithm.launch.learner_devices")
    with pytest.raises(ValueError, match=r"launch.learner_gpus=0\.5, and JAX finds no GPU 7\. See which"):
        check_device(0.5, "algorithm.launch.learner_gpus")  # where Ray has said which it is
    check_device((), "algorithm.launch.learner_devices")
    check_device(0.0, "algorithm.launch.learner_gpus")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    check_device((7,), "algorithm.launch.learner_devices")  # started by hand


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
