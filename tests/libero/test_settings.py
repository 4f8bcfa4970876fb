"""What can be evaluated, with which defaults, and what the error says where it cannot."""

import json
from pathlib import Path

import pytest
from checkpoints import export_for_libero
from libero_episodes import settings

from bridge.evaluate.__main__ import main
from bridge.evaluate.settings import Checkpoint, Group, Settings, group_tasks
from bridge.libero.installation import package_root
from bridge.libero.suites import INIT_STATES, SUITES


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_for_libero(tmp_path_factory.mktemp("run") / "checkpoints" / "000010")


@pytest.fixture
def copy(exported, tmp_path):
    """An export that may be damaged."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in exported.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_checkpoint_is_found_from_around_it_and_through_last(exported):
    last = exported.parents[1] / "last"
    last.symlink_to("000010")
    checkpoints = [Checkpoint.read(path) for path in (exported, exported.parent, last)]
    assert {checkpoint.path for checkpoint in checkpoints} == {exported.resolve()}
    assert checkpoints[0].label == f"{exported.parents[2].name}-000010"
    assert checkpoints[0].policy == "xvla"


def test_any_change_of_a_checkpoint_changes_its_digest(copy):
    before = Checkpoint.read(copy).digest
    assert Checkpoint.read(copy).digest == before
    processor = copy / "policy_postprocessor.json"
    processor.write_text(processor.read_text() + "\n")
    assert Checkpoint.read(copy).digest != before


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match="nothing is no folder"):
        Checkpoint.read(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"no LeRobot checkpoint: config\.json, model\.safetensors"):
        Checkpoint.read(tmp_path)


def test_an_export_for_another_environment_is_refused(copy):
    file = copy / "policy_preprocessor.json"
    pipeline = json.loads(file.read_text())
    pipeline["steps"].append({"registry_name": "xvla_imagenet_normalize", "config": {}})
    file.write_text(json.dumps(pipeline))
    with pytest.raises(ValueError, match=r"not exported for LIBERO.*xvla_imagenet_normalize"):
        Checkpoint.read(copy)


def test_a_checkpoint_whose_tokenizer_has_gone_says_how_to_mend_it(copy):
    file = copy / "policy_preprocessor.json"
    text = file.read_text()
    tokenizer = next(step for step in json.loads(text)["steps"] if "tokenizer_name" in step["config"])
    for name in ("/gone/tokenizer", "outputs/gone/tokenizer"):
        file.write_text(text.replace(tokenizer["config"]["tokenizer_name"], name))
        with pytest.raises(ValueError, match=f"tokenizer {name}, which is not there.* --moved {copy}"):
            Checkpoint.read(copy)
    file.write_text(text.replace(tokenizer["config"]["tokenizer_name"], "facebook/bart-large"))
    Checkpoint.read(copy)


def test_x_vla_acts_in_absolute_poses_for_800_steps_and_others_as_lerobot_has_it():
    of = settings()
    assert (of.control_mode, of.episode_length, of.horizon("libero_goal")) == ("absolute", 800, 800)
    other = Settings.make(Checkpoint(Path("x"), "smolvla", "sha"), n_episodes=1)
    assert (other.control_mode, other.episode_length, other.horizon("libero_goal")) == ("relative", None, 300)
    assert not [word for word in other.command(Group("libero_goal", (0,)), Path("o")) if "length" in word]


def test_the_command_is_lerobots_own():
    of = settings(seed=3, batch_size=2, arguments=["--policy.device=cuda"])
    assert of.command(Group("libero_10", (4, 5)), Path("out")) == [
        "--policy.path=/runs/a/pretrained_model",
        "--env.type=libero",
        "--env.task=libero_10",
        "--env.task_ids=[4, 5]",
        "--env.control_mode=absolute",
        "--env.episode_length=800",
        "--eval.n_episodes=4",
        "--eval.batch_size=2",
        "--seed=3",
        "--output_dir=out",
        "--policy.device=cuda",
    ]


def test_a_policy_that_does_not_resize_images_gets_those_of_its_own_size(copy):
    def sizes():
        of = Settings.make(Checkpoint.read(copy), n_episodes=1)
        words = of.command(Group("libero_goal", (0,)), Path("out"))
        return [word.removeprefix("--env.observation_") for word in words if "observation" in word]

    file = copy / "config.json"
    config = json.loads(file.read_text()) | {"resize_imgs_with_padding": None}
    for name in ("image", "image2"):
        config["input_features"][f"observation.images.{name}"]["shape"] = [3, 96, 128]
    file.write_text(json.dumps(config))
    assert sizes() == ["height=96", "width=128"]
    file.write_text(json.dumps(config | {"resize_imgs_with_padding": [96, 128]}))  # for those of other sizes
    assert sizes() == ["height=96", "width=128"]
    file.write_text(json.dumps(config | {"resize_imgs_with_padding": [224, 224]}))
    assert sizes() == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_episodes": 0}, "--n_episodes must be at least 1"),
        ({"batch_size": 0}, "--batch_size must be at least 1"),
        ({"tasks_per_process": -1}, "--tasks_per_process must be at least 1"),
        ({"seed": -1}, "--seed must not be negative"),
        ({"episode_length": 991}, "--episode_length must be 1 to 990"),
        ({"arguments": ["--seed=3"]}, "--seed cannot be passed on to lerobot-eval: use --seed"),
        ({"arguments": ["--env.init_states=false"]}, "the report depends on it"),
    ],
)
def test_settings_out_of_range_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        settings(**values)


libero = pytest.mark.usefixtures("libero_environment")


@libero
def test_tasks_are_divided_in_the_same_way_always():
    groups = group_tasks(("libero_goal", "libero_90"), None, 4)
    assert [group.task_ids for group in groups[:3]] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    assert groups[-1] == Group("libero_90", (88, 89))
    assert len(groups) == 3 + 23
    assert group_tasks(("libero_10",), (3, 1), 1) == (Group("libero_10", (1,)), Group("libero_10", (3,)))


@libero
@pytest.mark.parametrize(
    ("suites", "tasks", "message"),
    [
        (("libero_space",), None, "no suite 'libero_space'"),
        (("libero_10", "libero_10"), None, "different names"),
        ((), None, "different names"),
        (("libero_10",), (10,), "numbers from 0 to 9"),
        (("libero_10",), (1, 1), "different numbers"),
        (("libero_10",), (-1,), "numbers from 0 to 9"),
    ],
)
def test_tasks_that_do_not_exist_are_named(suites, tasks, message):
    with pytest.raises(ValueError, match=message):
        group_tasks(suites, tasks, 1)


@libero
def test_all_tasks_have_as_many_initial_states_as_the_report_says():
    import torch

    files = [
        file for suite in SUITES for file in (package_root() / "init_files" / suite).glob("*.pruned_init")
    ]
    assert len(files) == 130
    # The package's own files, which LeRobot loads in the same way.
    assert {len(torch.load(file, weights_only=False)) for file in files} == {INIT_STATES}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "--preset=smoke"], "nothing is no folder"),
        ([], "give the checkpoint"),
        (["nothing"], "say what to evaluate"),
        (["nothing", "--suites=libero_10"], "say what to evaluate"),
        (["nothing", "--preset=smoke", "--processes=0"], "--processes must be at least 1"),
    ],
)
@libero
def test_the_command_says_what_is_wrong_in_one_line(
    arguments, message, libero_environment, monkeypatch, capsys
):
    monkeypatch.setenv("LIBERO_CONFIG_PATH", libero_environment["LIBERO_CONFIG_PATH"])
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@libero
def test_libero_that_was_never_set_up_is_named_before_anything_starts(
    exported, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    assert main([str(exported), "--preset=smoke"]) == 1
    assert "Run pirl-libero-setup" in capsys.readouterr().err


@libero
def test_missing_assets_are_named_before_anything_starts(
    exported, tmp_path, libero_environment, monkeypatch, capsys
):
    monkeypatch.setenv("LIBERO_CONFIG_PATH", libero_environment["LIBERO_CONFIG_PATH"])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main([str(exported), "--preset=smoke", f"--output_dir={tmp_path / 'out'}"]) == 1
    assert "assets are missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
