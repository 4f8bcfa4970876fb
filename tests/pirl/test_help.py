"""What every command's ``--help`` begins with, and that its examples are commands that work."""

import argparse
import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.command.help import WIDTH, Parser, head, say_first
from bridge.command.table import ACTOR, COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DIALECT = ("launch", "train", "actor", "sft")
"""Those that LeRobot's parser reads from the first option on."""
EXAMPLES = [(name, arguments) for name, entry in COMMANDS.items() for _, arguments in entry.examples]


@pytest.mark.parametrize("name", COMMANDS)
def test_it_begins_with_purpose_examples_and_pages_that_are_there(name):
    entry, lines = COMMANDS[name], head(name).splitlines()
    assert lines[0] == f"pirl {name}: {entry.what}."
    assert 2 <= len(entry.examples) <= 3
    assert all((ROOT / page).is_file() for page in entry.docs)
    assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize(("name", "arguments"), EXAMPLES)
def test_an_example_is_what_a_shell_reads(name, arguments):
    """Long ones go on in the next line."""
    lines = head(name).replace("\\\n", "").splitlines()  # as a shell does
    shown = [shlex.split(line) for line in lines if line.startswith("  pirl ")]
    assert shlex.split(f"pirl {name} {arguments}") in shown


class ParsedError(Exception):
    """A command has read its options."""


@pytest.fixture
def options(monkeypatch):
    """Return ``(module, arguments) -> `` what a command takes of its command line, and what it leaves."""

    def of(module, arguments):
        found = []

        def parse(self, args=None, namespace=None):
            assert isinstance(self, Parser)
            found.append(stock(self, args, namespace))
            raise ParsedError

        stock = argparse.ArgumentParser.parse_known_args
        monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
        monkeypatch.setattr(sys, "argv", ["pirl", *arguments])
        command = importlib.import_module(module)
        command = command if hasattr(command, "main") else importlib.import_module(f"{module}.__main__")
        with pytest.raises(ParsedError):
            command.main()
        return found[0]

    return of


@pytest.mark.parametrize(
    ("name", "arguments"), [(name, arguments) for name, arguments in EXAMPLES if name not in DIALECT]
)
def test_an_example_has_options_that_the_command_knows(name, arguments, options):
    _, rest = options(COMMANDS[name].module, shlex.split(arguments))
    if name not in ("doctor", "serve"):
        assert rest == []


def test_asked_by_a_command_that_lerobot_parses_it_comes_first(monkeypatch, capsys):
    for arguments, said in ((["--steps=1"], ""), (["--help"], f"{head('train')}\nAll follow:\n\n")):
        monkeypatch.setattr(sys, "argv", ["learner", *arguments])
        say_first("train", "All follow:")
        assert capsys.readouterr().out == said


LIGHT = ("launch", "watch", "eval", "card", "convert", "record", "experts", "setup", "demo")
HEAVY = ("torch", "lerobot", "jax", "transformers", "libero", "ray")
PROGRAM = """
import runpy, sys
module, heavy = sys.argv[1], sys.argv[2].split(",")
sys.argv = ["pirl", *sys.argv[3:]]
try:
    runpy.run_module(module, run_name="__main__")
finally:
    print("loaded:", [name for name in heavy if name in sys.modules])
"""


def run(module, *arguments):
    command = [sys.executable, "-c", PROGRAM, module, ",".join(HEAVY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", LIGHT)
def test_help_comes_before_anything_heavy_is_loaded(name):
    done = run(COMMANDS[name].module, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(head(name))
    assert done.stdout.endswith("loaded: []\n")
    assert max(len(line) for line in done.stdout.splitlines()) <= 110


def test_a_card_is_refused_and_written_without_torch_or_lerobot(tmp_path):
    done = run("bridge.card", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "loaded: []\n")
    assert done.stderr.startswith(f"error: {tmp_path} is no policy")
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "config.json").write_text('{"type": "xvla"}')
    done = run("bridge.card", str(policy))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'policy.card' / 'README.md'}\nloaded: []\n"


def test_a_folder_that_is_recorded_already_is_refused_before_anything_heavy_is_loaded(tmp_path):
    (tmp_path / "dataset").mkdir()
    done = run("bridge.libero.record", "--tasks=0", f"--output_dir={tmp_path}")
    assert (done.returncode, done.stdout) == (1, "loaded: []\n")
    assert done.stderr.endswith(
        f"error: {tmp_path}/dataset already exists. Remove {tmp_path}/dataset, or record elsewhere.\n"
    )


def test_an_actors_help_names_the_plugin_and_is_lerobots(monkeypatch):
    from bridge.command import __main__ as pirl

    started = []
    monkeypatch.setattr(sys, "argv", ["pirl", "actor", "--help"])
    monkeypatch.setattr(pirl.os, "execv", lambda _, words: started.append(words))
    pirl.main()
    assert started[0][1:4] == ["-m", ACTOR, "--help"]
