"""Two evaluations are compared episode by episode."""

import json

import imageio.v2 as imageio
import pytest
from libero_episodes import identity, results, settings
from scipy.stats import binomtest

from bridge.evaluate.__main__ import main
from bridge.evaluate.compare import compare, write_comparison
from bridge.evaluate.report import JSON, make_report
from bridge.evaluate.statistics import paired_difference
from pirl_jax.files import write_json

T, F = True, False
A = {"libero_object": [[T, F, F, F, F, F], [T, T, F, F, T, T]], "libero_goal": [[F, F, F, T, T, T]]}
B = {"libero_object": [[T, T, T, T, T, T], [T, T, F, T, F, T]], "libero_goal": [[F, F, F, F, T, T]]}


@pytest.fixture
def folder(tmp_path):
    def write(name, outcomes, identity_changes=None, **values):
        of = settings(name, n_episodes=6, **values)
        report = make_report(of, identity(of, **(identity_changes or {})), results(of, outcomes))
        write_json(tmp_path / name / JSON, report)
        return tmp_path / name

    return write


def test_pairs_are_counted_by_task_suite_and_overall(folder):
    comparison = compare(folder("a", A), folder("b", B))
    first, second = comparison["suites"]["libero_object"]["tasks"]
    assert (first["pairs"], first["only_a"], first["only_b"]) == (6, 0, 5)
    assert (second["only_a"], second["only_b"]) == (1, 1)
    suite, overall = comparison["suites"]["libero_object"], comparison["overall"]
    assert (suite["pairs"], suite["only_a"], suite["only_b"]) == (12, 1, 6)
    assert (overall["pairs"], overall["only_a"], overall["only_b"]) == (18, 2, 6)
    assert overall["success_a"] == pytest.approx(8 / 18)
    assert overall["success_b"] == pytest.approx(12 / 18)
    difference, limits = paired_difference(6, 2, 6, 4)
    assert overall["difference"] == pytest.approx(difference)
    assert overall["difference_ci95"] == pytest.approx(list(limits))
    assert overall["p_mcnemar"] == pytest.approx(binomtest(2, 8).pvalue)
    assert first["p_mcnemar"] == pytest.approx(2 / 2**5)


def test_p_values_are_adjusted_for_their_number(folder):
    """Ten tasks of which B is better at one: 6 of 6 are not enough among ten, and are for one."""
    one = {"libero_object": [[F] * 6], "libero_goal": [[T, F, T, F, T, F]] * 9}
    other = one | {"libero_object": [[T] * 6]}
    comparison = compare(folder("a", one), folder("b", other))
    (task,) = comparison["suites"]["libero_object"]["tasks"]
    assert task["p_mcnemar"] == pytest.approx(2 / 2**6)
    assert task["p_holm"] == pytest.approx(10 * 2 / 2**6)
    assert comparison["suites"]["libero_object"]["p_holm"] == pytest.approx(2 * 2 / 2**6)
    assert "p_holm" not in comparison["overall"]
    assert comparison["verdict"].startswith("After Holm's correction, 0 of 10 tasks are better and 0 worse")
    alone = compare(folder("c", {"libero_object": [[F] * 6]}), folder("d", {"libero_object": [[T] * 6]}))
    assert alone["verdict"].startswith("After Holm's correction, 1 of 1 tasks are better and 0 worse")


def test_pairing_goes_by_initial_state_not_by_rate(folder):
    # Equal rates, but never in the same episode.
    a, b = {"libero_goal": [[T, F, T, F, T, F]]}, {"libero_goal": [[F, T, F, T, F, T]]}
    overall = compare(folder("a", a), folder("b", b))["overall"]
    assert (overall["difference"], overall["only_a"], overall["only_b"]) == (0.0, 3, 3)


def test_only_shared_episodes_count_and_the_rest_is_told(folder):
    fewer = {"libero_object": [B["libero_object"][0]]}
    comparison = compare(folder("a", A), folder("b", fewer))
    assert comparison["overall"]["pairs"] == 6
    assert (comparison["a"]["unpaired"], comparison["b"]["unpaired"]) == (12, 0)


def test_other_seeds_make_no_pairs(folder):
    with pytest.raises(ValueError, match="no episode of the same task"):
        compare(folder("a", A), folder("b", B, seed=99))


def test_other_conditions_are_warned_about(folder):
    changes = {"control_mode": "relative", "versions": {"lerobot": "0.6.1", "torch": "2.12.0"}}
    warnings = compare(folder("a", A), folder("b", B, changes))["warnings"]
    assert warnings == [
        "control_mode differs: A 'absolute', B 'relative'",
        "version of torch differs: A '2.11.0', B '2.12.0'",
    ]
    assert compare(folder("c", A), folder("d", B))["warnings"] == []


def test_the_command_writes_and_prints_the_comparison(folder, tmp_path, capsys):
    a, b = folder("a", A), folder("b", B)
    assert main(["--compare", str(a), str(b), f"--output_dir={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr().out
    written = (tmp_path / "out" / "compare.md").read_text()
    assert written in printed
    for part in (
        "| **all pairs** | 18 | 44.4 % | 66.7 % | +22.2 |",
        "not comparable with published",
        "method 10",
        "| p | p, Holm |",
        "After Holm's correction, 0 of 3 tasks are better and 0 worse (p < 0.05).",
        "Intervals and tests are about *these tasks*",
    ):
        assert part in written
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["overall"]["pairs"] == 18
    assert imageio.imread(tmp_path / "out" / "compare.png").std() > 5


def test_with_a_runs_metrics_its_learning_curve_is_drawn(folder, tmp_path, capsys):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1, "train/success_rate": 0.5}\n{"step": 2, "train/success_rate": 0.7}\n')
    command = ["--compare", str(folder("a", A)), str(folder("b", B)), f"--output_dir={tmp_path / 'out'}"]
    assert main([*command, f"--metrics={metrics}"]) == 0
    assert "learning_curve.png" in capsys.readouterr().out
    assert imageio.imread(tmp_path / "out" / "learning_curve.png").std() > 5
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    differs = (
        "episodes of libero_goal end after 800 steps here, and after 280 in training: --episode_length=280"
    )
    (tmp_path / "b" / "report.json").write_text(json.dumps(report | {"unlike_training": [differs]}))
    assert main([*command, f"--metrics={metrics}"]) == 0
    assert f"> Warning: B is not evaluated as it was trained: {differs}." in capsys.readouterr().out
    assert main([*command, f"--metrics={tmp_path / 'elsewhere.jsonl'}"]) == 1
    assert "elsewhere.jsonl holds no update" in capsys.readouterr().err
    assert main(["checkpoint", f"--metrics={metrics}"]) == 1
    assert "--metrics belongs to --compare" in capsys.readouterr().err


def test_a_learning_curve_names_the_policy_and_where_it_was_evaluated(folder, tmp_path, monkeypatch):
    """Not what it was trained on, which the reports do not know."""
    titles = []
    monkeypatch.setattr(
        "bridge.figures.learning_curve.learning_curve",
        lambda updates, path, title, *rates: titles.append(title),
    )
    monkeypatch.setattr("bridge.evaluate.compare.write_file", lambda path, write: write(path))
    comparison = compare(folder("a", A), folder("b", B))
    write_comparison(comparison, tmp_path, [{"step": 1, "train/success_rate": 0.5}])
    assert titles[0].startswith("b, evaluated on libero_object and libero_goal\n")
    three = {name: [[T] * 6] for name in ("libero_object", "libero_goal", "libero_10")}
    write_comparison(compare(folder("c", three), folder("d", three)), tmp_path, [{"step": 1}])
    assert titles[1].startswith("d, evaluated on 3 suites\n")


def test_a_folder_without_a_report_is_an_error_of_one_line(folder, tmp_path, capsys):
    assert main(["--compare", str(folder("a", A)), str(tmp_path / "nothing")]) == 1
    error = capsys.readouterr().err
    assert "nothing holds no report.json" in error
    assert error.count("\n") == 1
