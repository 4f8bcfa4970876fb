"""LeRobot's settings of evaluation, as a learner reads them, and what is said before it starts."""

import json

import draccus
import pytest
from tiny import write_run_config

import bridge.plugin

bridge.plugin.register()

from bridge.libero import init_states  # noqa: E402
from bridge.plugin.libero_config import LiberoConfig  # noqa: E402
from bridge.settings.evaluation import check_evaluation, evaluation_freq, of_run  # noqa: E402
from bridge.settings.learner_config import LearnerConfig  # noqa: E402


def config(tmp_path, **settings):
    path = write_run_config(tmp_path, 50051)
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with draccus.config_type("json"):
        cfg = draccus.parse(LearnerConfig, str(path), args=[])
    cfg.validate()
    return cfg


@pytest.mark.parametrize(
    ("settings", "freq"),
    [({}, 0), ({"env_eval_freq": 20_000}, 0), ({"env_eval_freq": 0}, 0), ({"env_eval_freq": 3}, 3)],
)
def test_lerobots_default_is_nobodys_wish(tmp_path, settings, freq):
    assert evaluation_freq(config(tmp_path, **settings)) == freq


def test_its_episodes_are_named_where_none_are_played_and_said_nothing_of_where_they_are(tmp_path, caplog):
    config(tmp_path, eval={"n_episodes": 4})
    assert "eval.n_episodes=4 has no effect here: it is read if env_eval_freq says" in caplog.text
    caplog.clear()
    cfg = config(tmp_path, env_eval_freq=5, eval={"n_episodes": 4})
    assert "eval" not in caplog.text
    plan = {"every": 5, "turns": [(0, 0), (0, 1), (0, 2), (0, 3)], "seed": 7, "total_updates": cfg.steps}
    assert of_run(cfg) == plan
    config(tmp_path, env_eval_freq=5, eval={"n_episodes": 4, "recording": True})
    assert (
        "eval.recording=True has no effect here: evaluation episodes are counted and not kept" in caplog.text
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"eval": {"n_episodes": 0, "batch_size": 1}}, "eval.n_episodes must be at least 1"),
        ({"eval": {"n_episodes": 2000}, "steps": 1_000_000}, "more episodes than have numbers"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(tmp_path, settings, words):
    with pytest.raises(ValueError, match=words):
        config(tmp_path, env_eval_freq=5, **settings)


def libero(caplog, n_episodes=20, **env):
    """What is said of a run on LIBERO."""

    class Config:
        steps, env_eval_freq = 100, 5
        eval = type("Eval", (), {"n_episodes": n_episodes})

    Config.env = LiberoConfig(task="libero_goal", control_mode="absolute", **env)
    caplog.clear()
    check_evaluation(Config)
    return caplog.text


def test_what_evaluation_shares_with_training_is_said(caplog):
    assert "both begin in the initial states 0:50" in libero(caplog)
    overlapping = libero(caplog, train_init_states="20:50", eval_init_states="0:25")
    assert "both begin in the initial states 20:25" in overlapping
    assert libero(caplog, train_init_states="20:50", eval_init_states="0:20") == ""
    assert libero(caplog, init_states=False) == ""  # seeds of its own


def test_tasks_that_do_not_divide_the_episodes_are_said(caplog):
    states = {"train_init_states": "20:50", "eval_init_states": "0:20"}
    said = libero(caplog, n_episodes=23, **states)
    assert "the first 3 tasks are evaluated on 3 episodes each, the others on 2" in said
    assert libero(caplog, n_episodes=30, **states) == ""


@pytest.mark.parametrize("name", ["train_init_states", "eval_init_states"])
def test_a_range_of_initial_states_is_first_to_end(name):
    states = LiberoConfig(**{name: "20:50"})
    assert getattr(states, name.replace("init_", "")) == range(20, 50)
    assert getattr(LiberoConfig(), name.replace("init_", "")) == range(50)
    for wrong in ("20", "20-50", "50:20", "20:51", "7:7", "-1:4", "a:b", ""):
        with pytest.raises(ValueError, match=rf"env\.{name} must .*; got {wrong!r}"):
            LiberoConfig(**{name: wrong})
    with pytest.raises(ValueError, match=rf"env\.{name}=0:5 would do nothing: with env.init_states=false"):
        LiberoConfig(**{name: "0:5"}, init_states=False)


def test_an_end_may_be_left_out_and_what_two_ranges_share_is_what_is_in_both():
    assert init_states.read("x", ":5") == range(5)
    assert init_states.read("x", "45:") == range(45, 50)
    assert init_states.overlap(range(20, 50), range(25)) == range(20, 25)
    assert not init_states.overlap(range(20, 50), range(20))
