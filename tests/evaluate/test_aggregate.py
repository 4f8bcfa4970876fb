"""Several training runs in one report, against a baseline's too."""

import json

import imageio.v2 as imageio
import numpy as np
import pytest
from libero_episodes import identity, results, settings
from scipy.stats import mannwhitneyu, trim_mean, ttest_ind

from bridge.evaluate.__main__ import main
from bridge.evaluate.aggregate.content import aggregate
from bridge.evaluate.report import JSON, make_report
from pirl_jax.files import write_json

RATES = {"libero_object": (0.9, 0.5, 0.3), "libero_goal": (0.7, 0.2)}
N = 20


@pytest.fixture
def folder(tmp_path):
    def write(name, outcomes, changes=None, **values):
        of = settings(name, **({"n_episodes": len(next(iter(outcomes.values()))[0])} | values))
        report = make_report(of, identity(of, **(changes or {})), results(of, outcomes))
        write_json(tmp_path / name / JSON, report)
        return tmp_path / name

    return write


def outcomes(seed, gain=0.0, suites=tuple(RATES), n=N):
    random = np.random.default_rng(seed)
    return {
        name: [[bool(x) for x in random.random(n) < rate + gain] for rate in RATES[name]] for name in suites
    }


def rates(played):
    return np.asarray([np.mean(task) for suite in played.values() for task in suite])


def test_success_is_the_mean_over_runs_of_each_runs(folder):
    played = [outcomes(seed) for seed in range(3)]
    found = aggregate([folder(f"seed{i}", one) for i, one in enumerate(played)])
    matrix = np.stack([rates(one) for one in played])
    of_suites = np.stack([matrix[:, :3].mean(1), matrix[:, 3:].mean(1)])
    average = found["average"]["runs"]
    assert average["of_runs"] == pytest.approx(list(of_suites.mean(0)))
    assert average["success"] == pytest.approx(of_suites.mean())
    assert average["episodes_of_a_run"] == 5 * N
    assert average["interquartile_mean"]["value"] == pytest.approx(trim_mean(matrix, 0.25, axis=None))
    suite = found["suites"]["libero_goal"]
    assert suite["runs"]["success"] == pytest.approx(matrix[:, 3:].mean())
    assert [task["runs"]["of_runs"] for task in suite["tasks"]] == [
        list(column) for column in matrix[:, 3:].T
    ]
    assert suite["tasks"][0]["instruction"] == "open the middle drawer of the cabinet"
    assert found["warnings"] == []
    assert found["baseline"] == []
    assert "baseline" not in found["average"]


def test_one_run_is_its_own_report(folder):
    one = folder("a", outcomes(0))
    found, report = aggregate([one]), json.loads((one / "report.json").read_text())
    for name in ("success", "ci95", "ci95_new_tasks"):
        assert found["average"]["runs"][name] == pytest.approx(report["suite_average"][name])
        task = report["suites"]["libero_object"]["tasks"][1]
        assert found["suites"]["libero_object"]["tasks"][1]["runs"][name] == pytest.approx(task[name])


def test_two_groups_of_runs_are_told_apart_by_welchs_test_and_by_wins(folder):
    after, before = [outcomes(seed, 0.1) for seed in range(3)], [outcomes(seed) for seed in range(5, 9)]
    found = aggregate(
        [folder(f"after{i}", one) for i, one in enumerate(after)],
        [folder(f"before{i}", one) for i, one in enumerate(before)],
    )
    a, b = (np.stack([rates(one) for one in side])[:, :3] for side in (after, before))
    welch = ttest_ind(a.mean(1), b.mean(1), equal_var=False)
    suite = found["suites"]["libero_object"]
    assert suite["difference"] == pytest.approx(a.mean() - b.mean())
    assert suite["p"] >= welch.pvalue - 1e-12  # the same, unless chance of episodes alone is wider
    wins = np.mean([mannwhitneyu(a[:, task], b[:, task]).statistic for task in range(3)]) / 12
    assert suite["probability_of_improvement"]["value"] == pytest.approx(wins)
    low, high = suite["probability_of_improvement"]["ci95"]
    assert 0 <= low < wins < high <= 1
    tasks = [task for one in found["suites"].values() for task in one["tasks"]]
    assert min(task["p_holm"] for task in tasks) == pytest.approx(
        min(1, 5 * min(task["p"] for task in tasks))
    )
    assert found["verdict"].startswith("After Holm's correction, ")
    assert " of 5 tasks are better" in found["verdict"]


def test_runs_that_always_win_leave_no_interval(folder):
    good, bad = {"libero_goal": [[True] * 4, [True] * 4]}, {"libero_goal": [[False] * 4, [False] * 4]}
    found = aggregate([folder("a", good), folder("b", good)], [folder("c", bad), folder("d", bad)])
    won = found["average"]["probability_of_improvement"]
    assert won == {"value": 1.0, "ci95": None, "ci95_new_tasks": None}
    low, high = found["average"]["difference_ci95"]
    assert low < 1.0 == high  # eight episodes a run cannot be sure


def test_suites_of_one_policy_in_two_folders_are_one_run(folder):
    of_a = outcomes(0)
    first = folder("a", {"libero_object": of_a["libero_object"]})
    first = first.rename(first.with_name("a-object"))
    second = folder("a", {"libero_goal": of_a["libero_goal"]})
    found = aggregate([first, second, folder("b", outcomes(1))])
    assert [run["label"] for run in found["runs"]] == ["a", "b"]
    assert found["runs"][0]["folders"] == f"{first} + {second}"
    assert len(found["average"]["runs"]["of_runs"]) == 2
    assert found["warnings"] == []


def test_a_run_counts_once(folder, tmp_path):
    a, b = folder("a", outcomes(0)), folder("b", outcomes(1))
    with pytest.raises(ValueError, match="a is given twice"):
        aggregate([a, b, tmp_path / "b" / ".." / "a"])
    with pytest.raises(ValueError, match="a is given twice"):
        aggregate([a], [b, a])
    copy = tmp_path / "copy"
    write_json(copy / JSON, json.loads((a / JSON).read_text()))
    with pytest.raises(ValueError, match="of one policy and both hold libero_object task 0"):
        aggregate([a, copy])


def test_what_a_run_lacks_is_left_out_of_all_and_said(folder):
    whole, part = folder("whole", outcomes(0)), folder("part", outcomes(1, suites=("libero_goal",)))
    found = aggregate([whole, part])
    assert list(found["suites"]) == ["libero_goal"]
    assert found["warnings"] == [
        f"{part} lacks libero_object 0, libero_object 1, libero_object 2, which is left out of all runs",
        f"60 episodes of {whole} are left out: not all runs have played them",
    ]
    fewer = aggregate([folder("c", outcomes(2)), folder("d", outcomes(3, n=5))])
    assert fewer["average"]["runs"]["episodes_of_a_run"] == 25
    assert "75 episodes of" in fewer["warnings"][0]


def test_other_episodes_are_refused_and_other_conditions_warned_about(folder):
    a = folder("a", outcomes(0))
    with pytest.raises(ValueError, match="have no episode of the same task, initial state and seed"):
        aggregate([a, folder("b", outcomes(1), seed=5)])
    other = folder("c", outcomes(1), {"control_mode": "relative", "versions": {"lerobot": "0.6.2"}})
    found = aggregate([a, folder("d", outcomes(2))], [other])
    assert found["warnings"] == [
        f"control_mode differs: {a} and {a.with_name('d')} 'absolute', {other} 'relative'",
        f"version of lerobot differs: {a} and {a.with_name('d')} '0.6.1', {other} '0.6.2'",
        f"version of torch differs: {a} and {a.with_name('d')} '2.11.0', {other} None",
    ]


def test_the_command_writes_and_prints_the_report(folder, tmp_path, capsys):
    after = [str(folder(f"seed{i}", outcomes(i, 0.1))) for i in range(3)]
    before = str(folder("start", outcomes(9)))
    out = tmp_path / "out"
    assert main(["--aggregate", *after, "--baseline", before, f"--output_dir={out}"]) == 0
    printed, written = capsys.readouterr().out, (out / "aggregate.md").read_text()
    for part in (
        "3 runs against a baseline of 1 run",
        "95 %: new tasks of this kind",
        "P(improvement)",
        "After Holm's correction",
        "not comparable with published",
    ):
        assert part in printed
        assert part in written
    for part in (
        "- *these tasks*: what runs like these 3 reach on average on just these tasks.",
        "- The baseline's: *these tasks*: what this policy reaches",
        "open the middle drawer of the cabinet",
        f"(`{before}`)",
    ):
        assert part in written
    assert json.loads((out / "aggregate.json").read_text())["format"] == 1
    assert imageio.imread(out / "aggregate.png").std() > 5


@pytest.mark.parametrize("suites", [{"libero_goal": 1}, {"libero_spatial": 10, "libero_10": 10}])
def test_one_task_and_many_are_drawn(folder, tmp_path, suites):
    played = {name: [[True, False]] * size for name, size in suites.items()}
    assert main(["--aggregate", str(folder("a", played)), f"--output_dir={tmp_path / 'out'}"]) == 0
    assert imageio.imread(tmp_path / "out" / "aggregate.png").shape[0] > 200


def test_other_runs_have_another_folder(folder, capsys):
    a, b, c = (str(folder(name, outcomes(i))) for i, name in enumerate("abc"))
    places = set()
    for runs in ([a, b], [a, c], [a, b]):
        assert main(["--aggregate", *runs]) == 0
        places.add(capsys.readouterr().out.rpartition("aggregate: ")[2].splitlines()[0])
    assert len(places) == 2


def test_options_that_belong_elsewhere_are_refused(capsys):
    assert main(["--aggregate", "a", "b", "--suites=libero_goal"]) == 1
    assert "--suites would do nothing: --aggregate evaluates nothing" in capsys.readouterr().err
    assert main(["checkpoint", "--baseline", "b"]) == 1
    assert "--baseline belongs to --aggregate" in capsys.readouterr().err
    assert main(["--compare", "a", "b", "--baseline", "c"]) == 1
    assert "--baseline would do nothing: --compare evaluates nothing" in capsys.readouterr().err
