"""Every shell block of the documentation is run here, or names tests that run its commands, or says why not.

A comment stands before the block: ``<!-- run -->``, ``<!-- run: tests/….py::test_…, … -->`` or ``<!-- not
run: why -->``.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from lerobot.configs.default import DatasetConfig
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from reads import settings
from watched_run import write_config, write_rows

import bridge.plugin
from bridge.command.table import COMMANDS
from bridge.settings.learner_config import LearnerConfig
from bridge.settings.sft_config import SFTConfig

bridge.plugin.register()

from bridge.plugin.gym_config import ChunkedGymConfig  # noqa: E402
from bridge.plugin.libero_config import LiberoConfig  # noqa: E402
from bridge.plugin.recipe_config import PiRLConfig  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = r"```(?:bash|sh|shell|console)"
BLOCK = re.compile(rf"^(?:<!-- (?P<mark>[^\n]*) -->\n)?{FENCE}\n(?P<text>.*?)^```", re.M | re.S)
OF_LEROBOTS_PARSER = ("path", "type", "discover_packages_path")
"""What it takes behind a section's name, and no config class has."""


class Block(NamedTuple):
    """A shell block of a page."""

    page: str
    number: int
    mark: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}#{self.number}"


BLOCKS = [
    Block(str(page.relative_to(ROOT)), number, found["mark"] or "", found["text"])
    for page in PAGES
    for number, found in enumerate(BLOCK.finditer(page.read_text()), 1)
]
RUN_HERE = [block for block in BLOCKS if block.mark == "run"]
RUN_BY_TESTS = [block for block in BLOCKS if block.mark.startswith("run: ")]


def names(blocks):
    return [block.name for block in blocks]


def test_no_block_escapes():
    fences = sum(len(re.findall(rf"^\s*{FENCE}\b", page.read_text(), re.M)) for page in PAGES)
    assert len(BLOCKS) == fences > 30
    assert len(RUN_HERE) >= 2


@pytest.mark.parametrize("block", BLOCKS, ids=names(BLOCKS))
def test_each_is_run_or_says_why_not(block):
    reason = block.mark.removeprefix("not run: ")
    if block.mark.startswith("not run: "):
        assert len(reason.split()) > 3
    else:
        assert block in RUN_HERE + RUN_BY_TESTS, "give it a comment: run, run: <test>, or not run: <why>"


@pytest.mark.parametrize("block", RUN_BY_TESTS, ids=names(RUN_BY_TESTS))
def test_the_tests_that_run_it_are_there(block):
    for named in block.mark.removeprefix("run: ").split(", "):
        file, _, name = named.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("block", RUN_HERE, ids=names(RUN_HERE))
def test_it_runs_as_it_stands(block, tmp_path):
    """In a folder that has a run in ``outputs/train``, by the commands that pip would have installed."""
    commands = tmp_path / "bin"
    commands.mkdir()
    modules = {"pirl": "bridge.command"} | {f"pirl-{name}": each.module for name, each in COMMANDS.items()}
    for name, module in modules.items():
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (commands / name).chmod(0o755)
    run = tmp_path / "outputs" / "train"
    write_rows(run, 3)
    write_config(run)
    paths = os.pathsep.join([str(commands), os.environ["PATH"]])
    environment = os.environ | {"PATH": paths, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        ["bash", "-e", "-c", block.text], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def known_settings() -> set[str]:
    sections = {"policy": XVLAConfig, "algorithm": PiRLConfig, "dataset": DatasetConfig}
    environments = (ChunkedGymConfig, LiberoConfig)
    commands = [settings(LearnerConfig, sections | {"env": env}, {}) for env in environments]
    commands.append(settings(SFTConfig, {"policy": XVLAConfig}, {}))
    return {setting.name for command in commands for setting in command}


def test_every_setting_that_a_block_gives_is_there():
    known = known_settings()
    option = re.compile(r"--([a-z_]+(?:\.[a-z_]+)+)")
    without_comments = [(block.name, re.sub(r"(?m)(^|\s)#.*", "", block.text)) for block in BLOCKS]
    given = [(where, name) for where, text in without_comments for name in option.findall(text)]
    unknown = [
        (where, name)
        for where, name in given
        if name not in known and name.rpartition(".")[2] not in OF_LEROBOTS_PARSER
    ]
    assert unknown == []
    assert len(given) > 50
