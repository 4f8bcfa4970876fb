"""What a command's ``--help`` begins with: purpose, examples, where more is said. Imports nothing heavy."""

from __future__ import annotations

import argparse
import re
import sys
from functools import partial

from bridge.command.table import COMMANDS

WIDTH = 100
"""Columns."""
ASKS = ("-h", "--help")


class Parser(argparse.ArgumentParser):
    """Of a command's options, the help of which begins as every command's does.

    Args:
        name: Of the command.
        settings: What ``argparse`` takes. ``description`` is what else is to be known before the options.
    """

    def __init__(self, name: str, **settings: object) -> None:
        form = partial(argparse.HelpFormatter, width=WIDTH)
        super().__init__(**settings, formatter_class=form)  # pyright: ignore[reportArgumentType]
        self._name = name

    def format_help(self) -> str:
        """Return purpose, examples and docs, and then usage and options."""
        return f"{head(self._name)}\n{super().format_help()}"


def head(name: str) -> str:
    """Return what a command's help begins with."""
    entry = COMMANDS[name]
    lines = [f"pirl {name}: {entry.what}.", "", "examples:"]
    for why, arguments in entry.examples:
        lines += [f"  # {why}", *_broken(f"pirl {name} {arguments}".rstrip())]
    return "\n".join([*lines, "", f"docs: {', '.join(entry.docs)}", ""])


def say_first(name: str, then: str) -> None:
    """Print a command's head if its command line asks for help, before what LeRobot says of every setting.

    Args:
        name: Of the command.
        then: What follows, for people.
    """
    if set(ASKS) & set(sys.argv[1:]):
        print(f"{head(name)}\n{then}\n", flush=True)


def _broken(command: str) -> list[str]:
    """Return a command in lines that fit, as a shell reads them."""
    lines, line = [], "  "
    for word in re.findall(r'"[^"]*"|\S+', command):
        if len(line) + len(word) + 3 > WIDTH:
            lines.append(f"{line} \\")
            line = "     "
        line += word if not line.strip() and not lines else f" {word}"
    return [*lines, line]
