"""``pirl``, the one name for every command."""

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import commands as page
import pytest

from bridge.command.__main__ import command_line, overview, unknown
from bridge.command.table import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def pirl(*arguments):
    command = [sys.executable, "-m", "bridge.command", *arguments]
    environment = os.environ | page.WIDTH
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_alone_it_lists_every_command_with_a_line_and_an_example(arguments):
    done = pirl(*arguments)
    assert (done.returncode, done.stdout) == (0, overview() + "\n")
    lines = [line.strip() for line in done.stdout.splitlines()]
    for name, entry in COMMANDS.items():
        at = next(index for index, line in enumerate(lines) if line.split()[:1] == [name])
        assert lines[at].removeprefix(name).strip() == entry.what
        assert lines[at + 1] == f"pirl {name} {entry.examples[0][1]}".strip()


def test_the_page_of_commands_has_todays_list_and_each_with_options_of_its_own():
    text = page.PAGE.read_text()
    assert f"```text\n{overview()}\n```" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## pirl",
        *(f"## pirl {name}" for name in page.OWN_OPTIONS),
    ]


def test_it_loads_nothing_before_it_knows_the_command():
    program = "import sys, bridge.command.__main__; print(len(sys.modules), 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules, numpy = done.stdout.split()
    assert int(modules) < 150
    assert numpy == "False"


def test_a_command_that_is_none_ends_in_one_line_with_the_one_that_was_meant():
    done = pirl("wach", "outputs/run")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: there is no command 'wach'. Did you mean pirl watch? (pirl --help lists them)\n"
    )
    assert "mean" not in unknown("frobnicate")
    assert unknown("--steps=3").startswith("give a command before its options: pirl train --steps=3")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_there(name):
    module = COMMANDS[name].module
    assert importlib.util.find_spec(module) is not None
    folder = importlib.util.find_spec(module).submodule_search_locations
    assert folder is None or importlib.util.find_spec(f"{module}.__main__") is not None


def test_every_command_of_today_has_its_place_here():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    modules = {entry.module for entry in COMMANDS.values()} | {"bridge.command"}
    started = {target.partition(":")[0].removesuffix(".__main__") for target in scripts.values()}
    assert started <= modules | {"bridge.launch.command"}


def test_a_command_becomes_its_own_process_with_its_arguments(tmp_path):
    done = pirl("watch", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert done.stderr == f"error: there is no folder {tmp_path / 'nowhere'}. Give the output_dir of a run.\n"


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], ["--env.discover_packages_path=bridge.plugin"]),
        (["--env.discover_packages_path=bridge.plugin"], []),
        (["--env.discover_packages_path", "bridge.plugin"], []),
        (["--env.discover_packages_path=mine"], ["--algorithm.discover_packages_path=bridge.plugin"]),
        (["--robot.discover_packages_path=mine"], ["--env.discover_packages_path=bridge.plugin"]),
    ],
)
def test_the_actor_is_lerobots_own_with_the_plugin_once(given, added):
    assert command_line("actor", given) == ["-m", "lerobot.rl.actor", *given, *added]
    assert command_line("train", given) == ["-m", "pirl_jax.learner", *given]


@pytest.mark.slow  # a process each, which load torch and JAX; the others of this file would notice most
@pytest.mark.parametrize("name", COMMANDS)
def test_each_commands_help_works(name):
    done = pirl(name, "--help")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 3
    if name in page.OWN_OPTIONS:
        assert page.part(name, done.stdout) in page.PAGE.read_text(), "run: python docs/commands.py --write"
