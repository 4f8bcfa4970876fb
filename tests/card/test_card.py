"""A card says what the run and the reports say, of just this policy."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import ModelCard
from libero_episodes import identity, results, settings

from bridge.card import evaluation
from bridge.card.__main__ import main
from bridge.card.card import CURVE, card
from bridge.card.policy import Policy
from bridge.card.written import README, write_card
from bridge.evaluate.report import make_report, write_report
from pirl_jax.files import digest_of_folder
from pirl_jax.training.interval import wilson

T, F = True, False
OUTCOMES = {"libero_object": [[T, T, T, F], [T, F, F, F]]}
OWN = {"kind": "lerobot", "revision": "abc", "reason": "hub download, revision abc"}


def report_of(folder, **assets):
    """A report of pirl-eval on a policy's folder."""
    of = settings(seed=7)
    report = make_report(of, identity(of, **({"assets": assets} if assets else {})), results(of, OUTCOMES))
    report["settings"]["checkpoint"] |= {"path": str(folder), "sha256": digest_of_folder(folder)}
    return report


def pirl_card(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["pirl-card", *map(str, arguments)])
    main()


def test_it_has_lerobots_metadata_and_what_the_run_is(run):
    policy = Policy.read(run)
    text = card(policy, repo_id="me/robot")
    data = ModelCard(text).data.to_dict()
    assert data.pop("tags") == ["lerobot", "pi_rl", "reinforcement-learning", "robotics", "xvla"]
    assert (
        data
        == {
            "license": "apache-2.0",
            "library_name": "lerobot",
            "pipeline_tag": "robotics",
            "base_model": "lerobot/xvla-base",
            "model_name": "robot",
        }
        or "model-index" not in data
    )
    assert data["base_model"] == "lerobot/xvla-base"
    assert text.count("# robot\n") == 1
    assert "[lerobot/xvla-base](https://huggingface.co/lerobot/xvla-base)" in text
    assert "**Trained for:** 20 of 40 updates" in text
    assert "| `action` | ACTION | `(4,)` |" in text
    assert "--policy.path=me/robot" in text


def test_the_recipe_is_told_by_what_differs_from_its_preset(run):
    text = card(Policy.read(run))
    table = text.partition("| `algorithm.…` | here | there |")[2]
    assert "| `optimizer.lr` | `0.0003` |" in table
    assert "| `rollout.episodes_per_update` | `4` |" in table
    assert "learner_port" not in text
    assert "/tmp/" not in text  # nothing of the machine


def test_success_in_the_run_is_of_this_checkpoint_with_intervals(run):
    policy = Policy.read(run)
    assert max(row["step"] for row in policy.rows) == 20
    (own,) = [row for row in policy.rows if row["step"] == 20 and "eval/n_episodes" in row]
    pooled = [row for row in policy.rows if "train/success_rate" in row][-5:]
    wins = round(sum(64 * row["train/success_rate"] for row in pooled))
    low, high = wilson(wins, 320)
    text = card(policy)
    assert (
        f"without exploration noise: {own['eval/pc_success']:.1f} % of 100 episodes "
        f"(95 %: {own['eval/interval_low']:.1f} – {own['eval/interval_high']:.1f}" in text
    )
    assert (
        f"Exploring, with noise, in the last 5 updates before it: {100 * wins / 320:.1f} % of 320 training "
        f"episodes (95 %: {100 * low:.1f} – {100 * high:.1f})" in text
    )


@pytest.mark.parametrize("kind", ["development", "lerobot"])
def test_scores_have_intervals_and_say_on_which_assets(run, kind):
    """Others' scores are compared with by a site that reads the metadata: there only LeRobot's own are."""
    policy = Policy.read(run)
    report = report_of(policy.folder, **(OWN if kind == "lerobot" else {}))
    text = card(policy, report)
    own = kind == "lerobot"
    assert ("scores are not comparable" in text) == (not own)
    assert ("LeRobot's own assets" in text) == own
    assert "| libero_object | 50.0 % |" in text
    index = yaml.safe_load(text.split("---")[1]).get("model-index")
    assert (index is not None) == own
    if own:
        (result,) = index[0]["results"]
        assert (result["dataset"]["type"], result["metrics"][0]["value"]) == ("libero_object", 50.0)


def test_a_report_beside_the_run_is_taken_if_it_is_of_this_policy(run, tmp_path):
    policy = Policy.read(run)
    write_report(report_of(policy.folder), tmp_path / "eval" / "this")
    assert evaluation.beside(policy)[0] == run / ".." / "eval" / "this" / "report.json"
    write_card(policy, tmp_path / "card")
    text = (tmp_path / "card" / README).read_text()
    assert "| libero_object | 50.0 % |" in text
    assert f"]({CURVE})" in text
    assert (tmp_path / "card" / CURVE).stat().st_size > 1000
    config = policy.folder / "policy_postprocessor.json"
    config.write_text(config.read_text() + "\n")  # another policy now
    assert evaluation.beside(policy) is None
    with pytest.raises(ValueError, match=r"report.json is of another policy \(.*\), or this one has changed"):
        evaluation.given(policy, tmp_path / "eval" / "this")


def test_a_report_of_the_same_weights_in_the_form_for_evaluation_counts(run, tmp_path):
    policy, other = Policy.read(run), tmp_path / "for_eval"
    shutil.copytree(policy.folder, other)
    (other / "FOR_EVAL.md").touch()
    report = report_of(other)
    write_report(report, tmp_path / "report")
    assert evaluation.given(policy, tmp_path / "report") == json.loads(json.dumps(report))
    (other / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match="is of another policy"):
        evaluation.given(policy, tmp_path / "report")


def test_the_command_writes_beside_the_policy_and_not_into_it(run, monkeypatch, capsys):
    """What lies in its folder is what a report is of."""
    policy = Policy.read(run)
    before = digest_of_folder(policy.folder)
    pirl_card(monkeypatch, run / "checkpoints/last", "--license=mit")
    written = policy.folder.with_name("pretrained_model.card") / README
    assert capsys.readouterr().out == f"{written}\n"
    assert ModelCard.load(written).data.license == "mit"
    assert digest_of_folder(policy.folder) == before


def test_a_policy_of_no_run_has_a_card_too(run, tmp_path):
    shutil.copytree(run / "checkpoints/last/pretrained_model", tmp_path / "alone")
    (tmp_path / "alone" / "train_config.json").unlink()
    text = card(Policy.read(tmp_path / "alone"))
    assert "_No evaluation results have been provided for this policy yet._" in text
    assert "## Training Configuration" not in text


def test_what_is_no_policy_ends_in_one_line(tmp_path):
    command = [sys.executable, "-m", "bridge.card", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: {tmp_path} is no policy: there is no config.json in it. Give a checkpoint "
        "(…/checkpoints/last), or the output_dir of a run that has one."
    )
