"""``pirl demo --quick``: its clone, its command line, its processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

import bridge.demo.__main__ as command
from bridge.demo import training
from bridge.demo.quick import page, run, warm_start
from bridge.launch.facts import read_facts
from bridge.launch.supervisor import Outcome
from bridge.weights.folder import load_params
from bridge.weights.state_dict import write_safetensors
from pirl_jax.run_folder.manifest import damage


def test_the_clone_is_as_it_was_made_and_no_larger_than_the_repository_takes():
    assert damage(warm_start.POLICY) is None
    assert warm_start.size(warm_start.POLICY) <= warm_start.SIZE_LIMIT
    text = "".join(path.read_text() for path in warm_start.POLICY.rglob("*.json"))
    assert set(re.findall(r'"(/[^"]*)"', text)) == {warm_start.NOWHERE}  # no path of who made it


def test_the_clone_loads_and_is_written_again_byte_for_byte(tmp_path):
    config, params = load_params(warm_start.POLICY)
    assert config.chunk_size == 8
    write_safetensors(tmp_path / "model.safetensors", params)
    assert (tmp_path / "model.safetensors").read_bytes() == (
        warm_start.POLICY / "model.safetensors"
    ).read_bytes()


class Stage:
    """Takes the supervisor's place: notes the plan, and leaves a run's metrics."""

    plans: list

    def __init__(self, plan, say, *, poll_s, in_turn):
        Stage.plans.append((plan, in_turn))
        self.plan = plan

    def run(self, show):
        rates = [0.25] * 5 + [0.5] * 5
        row = {"train/episodes": 64.0, "train/update_s": 1.0, "train/actor_learner_logprob_gap": 1e-5}
        row |= {"train/approx_kl": 0.1, "train/explained_variance": 0.5}
        self.plan.output_dir.mkdir()
        lines = [json.dumps({"step": i, "train/success_rate": r} | row) for i, r in enumerate(rates, 1)]
        (self.plan.output_dir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        show(self)
        return Outcome("finished", "")


@pytest.fixture
def stage(monkeypatch):
    Stage.plans = []
    monkeypatch.setattr(training, "Supervisor", Stage)
    monkeypatch.setattr(page, "has_desktop", lambda: False)
    return Stage.plans


def start(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["demo", "--quick", *arguments])
    command.main()


def test_a_learner_and_two_stock_actors_start_at_once_from_the_clone(stage, monkeypatch, tmp_path, capsys):
    out = tmp_path / "out"
    start(monkeypatch, "--seed=3", f"--output_dir={out}")
    ((plan, in_turn),) = stage
    assert not in_turn
    assert (plan.settings.actors, plan.updates, plan.output_dir) == (2, 10, out / "train")
    for each in (plan.learner, plan.actor):
        assert {f"--config_path={run.RECIPE}", f"--policy.path={warm_start.POLICY}", "--seed=3"} < set(each)
    assert "--env.discover_packages_path=bridge.plugin" in plan.actor
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["seed"], summary["first"]["n"], summary["last"]["success"]) == (3, 192, 0.5)
    assert summary["success_rates"] == [0.25] * 5 + [0.5] * 5
    assert summary["actor_command"].startswith("python -m lerobot.rl.actor ")
    said = capsys.readouterr()
    assert "+25.0 points" in said.out
    assert (out / "run.html").resolve().as_uri() in said.err
    assert "<script" in (out / "run.html").read_text()


def test_a_second_run_puts_the_first_aside(stage, monkeypatch, tmp_path):
    for _ in range(2):
        start(monkeypatch, f"--output_dir={tmp_path / 'out'}")
    assert len(list(tmp_path.glob("out*/summary.json"))) == 2


@pytest.mark.parametrize("name", ["demonstrations", "episodes"])
def test_what_it_does_not_read_is_refused_in_a_line(monkeypatch, tmp_path, name):
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, f"--{name}=10", f"--output_dir={tmp_path / 'out'}")
    assert ended.value.code == (
        f"error: --{name} is not read with --quick, which has none: leave one of them out."
    )
    assert not (tmp_path / "out").exists()


def test_a_failed_run_is_a_line(stage, monkeypatch, tmp_path):
    monkeypatch.setattr(Stage, "run", lambda self, show: Outcome("failed", "the learner is ill"))
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, f"--output_dir={tmp_path / 'out'}")
    assert ended.value.code == "error: the learner is ill"


@pytest.mark.parametrize("variables", [{}, {"DISPLAY": ":0"}, {"WAYLAND_DISPLAY": "wayland-0"}])
def test_a_browser_is_opened_only_where_there_is_a_screen(monkeypatch, tmp_path, variables):
    opened = []
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(page.webbrowser, "open", lambda address: opened.append(address) or True)
    (tmp_path / "train").mkdir()
    said = page.show(tmp_path / "train", tmp_path / "run.html")
    address = (tmp_path / "run.html").as_uri()
    assert opened == ([address] if variables else [])
    assert said.endswith(address)
    assert ("open in your browser" in said) == bool(variables)


def test_what_it_says_of_its_recipe_is_what_lerobots_parser_reads():
    arguments = [f"--config_path={run.RECIPE}", f"--policy.path={warm_start.POLICY}"]
    arguments += ["--algorithm.launch.actors=2", "--algorithm.actor_learner_config.learner_port=5"]
    read = read_facts([*arguments, "--output_dir=nowhere"])
    assert read == training.replace(run.facts(), output_dir="nowhere", port=5)


@pytest.mark.slow
def test_a_real_run_learns_and_shows_its_page(tmp_path):
    out = tmp_path / "out"
    options = ["--quick", "--seed=0", f"--output_dir={out}"]
    done = subprocess.run([sys.executable, "-m", "bridge.demo", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["updates"] == 10
    assert summary["last"]["success"] > summary["first"]["success"]
    assert summary["p_value"] < 0.05
    assert summary["max_actor_learner_logprob_gap"] < 1e-3
    assert (out / "run.html").exists()
    assert (out / "train" / "checkpoints" / "last" / "pretrained_model" / "model.safetensors").exists()


def test_ctrl_c_ends_it_with_one_line_and_everything_that_it_has_started(tmp_path):
    out = tmp_path / "out"
    options = ["--quick", f"--output_dir={out}"]
    with subprocess.Popen(
        [sys.executable, "-m", "bridge.demo", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        started, deadline = psutil.Process(process.pid), time.monotonic() + 100
        while len(started.children()) < 3:  # the learner and two actors
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)
        children = started.children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == (
        f"stopped by SIGINT; what was done is in {out}, and the next demo begins anew"
    )
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, [child.cmdline() for child in alive]
