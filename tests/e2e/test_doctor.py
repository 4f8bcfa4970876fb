"""``python -m pirl_jax.doctor`` with a stock actor of its own."""

import os
import subprocess
import sys

import pytest
from forked import Command
from test_learner import write_config

pytestmark = pytest.mark.e2e


def doctor(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pirl_jax.doctor", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        timeout=300,
    )


def test_the_doctor_examines_a_run_and_leaves_nothing_behind(tmp_path):
    config = write_config(tmp_path, 1)
    log = tmp_path / "doctor.log"
    status = Command("pirl_jax.doctor", [f"--config_path={config}", "--episodes=3"], log).wait(300)
    lines = log.read_text().splitlines()
    assert any(line.startswith("ok  actor and learner agree") for line in lines), lines[-20:]
    assert any(line.startswith("ok  the ratio is one before the first step") for line in lines)
    # An untrained policy never succeeds, and the doctor says so.
    assert any(line.startswith("!!  episodes differ in return") for line in lines)
    assert lines[-1].startswith("In 3 episodes ")
    assert "episodes differ in return" in lines[-1]
    assert not any("update 1 waits" in line for line in lines)
    assert status == 1
    assert not (tmp_path / "output").exists()


def test_a_config_that_does_not_fit_ends_in_one_line(tmp_path):
    config = write_config(tmp_path, 1)
    result = doctor(f"--config_path={config}", "--algorithm.noise.mode=brownian")
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert line.startswith("error: argument --algorithm.noise.mode: invalid choice: 'brownian' (choose from")
    assert "usage" not in result.stderr


@pytest.mark.parametrize("command", ["pirl_jax.learner", "pirl_jax.doctor"])
def test_a_run_that_cannot_fit_is_refused_before_it_starts(command, tmp_path):
    """A mebibyte is too little for any policy; what is said names what takes it and what helps."""
    config = write_config(tmp_path, 1)
    log = tmp_path / "log"
    arguments = [f"--config_path={config}", "--algorithm.memory_gb=0.001"]
    assert Command(command, arguments, log).wait(300) == 1
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("error:")]
    assert line.startswith("error: this run does not fit its device: it takes")
    assert "(algorithm.memory_gb)" in line
    assert not (tmp_path / "output").exists()


@pytest.mark.slow
def test_a_run_prints_what_it_takes_before_it_starts(tmp_path):
    """The doctor's trial included."""
    config = write_config(tmp_path, 1)
    log = tmp_path / "log"
    Command("pirl_jax.doctor", [f"--config_path={config}", "--episodes=1"], log).wait(300)
    text = log.read_text()
    for words in ("device memory: ", "a copy for the trial update", "at most", "policies as pushed", "TFLOP"):
        assert words in text, text[-2000:]


@pytest.mark.slow
def test_the_doctor_says_how_many_actors_a_policy_server_can_act_for(tmp_path):
    """In its own process, though the run's will be processes of their own."""
    serve = {"mode": "process", "max_batch": 2}
    config = write_config(tmp_path, 1, algorithm={"inference": "served", "serve": serve})
    log = tmp_path / "doctor.log"
    Command("pirl_jax.doctor", [f"--config_path={config}", "--episodes=2"], log).wait(300)
    lines = log.read_text().splitlines()
    assert any(line.startswith("ok  actor and learner agree") for line in lines), lines[-20:]
    (found,) = [line for line in lines if line.startswith("ok  the policy server is enough: up to ")]
    assert "one asks every " in found
