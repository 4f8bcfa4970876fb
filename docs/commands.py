"""Write what each command says of itself as a page: ``docs/reference/commands.md``.

    python docs/commands.py            # prints it
    python docs/commands.py --write    # writes the page

Starts a process for each command whose options are its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bridge.command.__main__ import overview
from bridge.command.table import COMMANDS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "commands.md"
WIDTH = {"COLUMNS": "100"}
OWN_OPTIONS = ("launch", "watch", "eval", "card", "convert", "record", "setup", "demo")
"""The others take settings, by the hundred, which have a page of their own."""
HEAD = """\
# Commands

Every command is `pirl NAME …`; those that `pip` installs under a name of their own (`pirl-launch`,
`pirl-watch`, …) are the same. Commands that take `--config_path` (`launch`, `train`, `actor`, `serve`,
`doctor`, `sft`) take every [setting](settings.md) behind it, as `--a.b=c`; `--help` of those lists all that
LeRobot has, too. The page is made by `python docs/commands.py --write`.
"""


def help_of(name: str) -> str:
    """Return what a command prints with ``--help``."""
    command = [sys.executable, "-m", "bridge.command", name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | WIDTH)
    return done.stdout


def page(helps: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        helps: Of each of ``OWN_OPTIONS``, what it prints.
    """
    return "\n".join(
        [HEAD, "## pirl", "", _block(overview()), *(part(name, helps[name]) for name in OWN_OPTIONS)]
    )


def part(name: str, help_text: str) -> str:
    """Return a command's part of the page."""
    entry = COMMANDS[name]
    what = f"{entry.what[0].upper()}{entry.what[1:]} (`python -m {entry.module}`)."
    return "\n".join([f"## pirl {name}", "", what, "", _block(help_text)])


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```\n"


if __name__ == "__main__":
    made = page({name: help_of(name) for name in OWN_OPTIONS})
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(made, encoding="utf-8")
    else:
        print(made)
