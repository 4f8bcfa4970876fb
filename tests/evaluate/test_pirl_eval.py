"""``pirl-eval`` without a simulator: what belongs to a result, and how a run ends."""

import pytest
import yaml
from libero_episodes import identity, results, settings

from bridge.evaluate import __main__ as command
from bridge.evaluate.benchmark import check_configured, contents
from bridge.evaluate.report import read_report
from bridge.evaluate.run import TasksFailedError
from bridge.evaluate.settings import Checkpoint, Group, Settings


@pytest.fixture
def libero(tmp_path, monkeypatch):
    """A config file of LIBERO's and the folders that it names."""
    folders = {name: tmp_path / name for name in ("bddl_files", "init_states")}
    for folder in folders.values():
        (folder / "libero_goal").mkdir(parents=True)
        (folder / "libero_goal" / "task").write_text("pick")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({name: str(path) for name, path in folders.items()}))
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["bddl_files", "init_states"])
def test_what_is_played_belongs_to_a_result(libero, name):
    before = contents()
    assert contents() == before
    (libero / name / "libero_goal" / "task").write_text("place")
    after = contents()
    assert {key for key in before if before[key] != after[key]} == {name}


@pytest.mark.parametrize("name", ["bddl_files", "init_states"])
def test_an_installation_that_is_gone_is_named_with_the_way_out(libero, name):
    check_configured()
    (libero / name).rename(libero / "moved")
    with pytest.raises(
        ValueError, match=rf"config.yaml says that {name} is .*not exist. Run: pirl-libero-setup"
    ):
        check_configured()


def run(monkeypatch, tmp_path, outcome):
    of = settings()
    monkeypatch.setattr(command, "package_root", lambda: None)
    monkeypatch.setattr(command, "check_configured", lambda: None)
    monkeypatch.setattr(Checkpoint, "read", classmethod(lambda cls, path: of.checkpoint))
    monkeypatch.setattr(Settings, "identity", lambda self: identity(self))
    monkeypatch.setattr(command, "group_tasks", lambda *_: (Group("libero_goal", (0,)),))
    monkeypatch.setattr("bridge.evaluate.report.instructions", lambda suite: ["push"])
    monkeypatch.setattr(command, "evaluate", outcome)
    return command.main(["a", "--suites=libero_goal", "--n_episodes=2", f"--output_dir={tmp_path}"])


def test_a_run_with_failures_reports_the_rest_and_ends_with_a_status_that_says_so(
    monkeypatch, tmp_path, capsys
):
    finished = results(settings(n_episodes=2), {"libero_goal": [[True, False]]})

    def failing(*_):
        raise TasksFailedError({Group("libero_10", (3,)): "lerobot-eval failed: fire\nlog"}, finished, 0)

    assert run(monkeypatch, tmp_path, failing) == 1
    error = capsys.readouterr().err
    assert "1 groups of tasks failed" in error
    assert "Continue with:\n  pirl-eval" in error
    assert read_report(tmp_path)["failed"] == {"libero_10 task 3": "lerobot-eval failed: fire"}
    assert "**libero_10 task 3 failed** and is not counted" in (tmp_path / "report.md").read_text()
    assert run(monkeypatch, tmp_path, lambda *_: finished) == 0
    assert read_report(tmp_path)["failed"] == {}


def test_options_that_a_comparison_does_not_read_are_refused(capsys):
    assert (
        command.main(["a", "--compare", "x", "y", "--suites=libero_goal", "--", "--policy.device=cuda"]) == 1
    )
    assert "checkpoint, --suites, --policy.device=cuda would do nothing" in capsys.readouterr().err


def test_a_checkpoint_of_which_a_run_keeps_what_changes_is_named_with_what_writes_it(tmp_path):
    folder = tmp_path / "run" / "checkpoints" / "000005"
    (folder / "training_state").mkdir(parents=True)
    (folder / "pretrained_model").mkdir()
    for name in ("config.json", "policy_preprocessor.json", "policy_postprocessor.json"):
        (folder / "pretrained_model" / name).write_text("{}")
    with pytest.raises(ValueError, match=f"pirl-convert {tmp_path}/run NEW_FOLDER --step=5"):
        Checkpoint.read(folder)


def test_what_is_not_as_in_training_is_said_before_anything_is_played(monkeypatch, tmp_path, capsys):
    said = []

    def outcome(*_):
        said.append(capsys.readouterr().out)
        return results(settings(n_episodes=2), {"libero_goal": [[True, False]]})

    monkeypatch.setattr(command, "unlike_training", lambda of, suites: [f"{suites} {of.episode_length}"])
    assert run(monkeypatch, tmp_path, outcome) == 0
    assert "not as the run that made this policy: ('libero_goal',) 800\n" in said[0]
