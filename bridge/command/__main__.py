"""``pirl COMMAND …``: becomes the command's own process, as ``python -m`` with its module would start it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from bridge.command.help import say_first
from bridge.command.table import ACTOR, COMMANDS, PLUGIN

_DISCOVER = "discover_packages_path"
_HELP = ("-h", "--help", "help")


def main() -> None:
    """Run the command line."""
    name, *arguments = sys.argv[1:] or _HELP
    if name in _HELP:
        print(overview())
        return
    if name not in COMMANDS:
        sys.exit(f"error: {unknown(name)}")
    if COMMANDS[name].module == ACTOR:
        say_first(name, "LeRobot's own settings follow, after some seconds:")
    os.execv(sys.executable, [sys.executable, *command_line(name, arguments)])


def command_line(name: str, arguments: Sequence[str]) -> list[str]:
    """Return what follows ``python`` for a command."""
    module = COMMANDS[name].module
    return ["-m", module, *arguments, *(plugin(arguments) if module == ACTOR else ())]


def plugin(arguments: Sequence[str]) -> list[str]:
    """Return the option by which LeRobot's actor finds the plugin, unless a command line has it.

    LeRobot keeps one package for each name of such an option: somebody else's keeps its own.
    """
    taken = [argument for argument in arguments if _DISCOVER in argument.partition("=")[0]]
    if PLUGIN in [*(argument.partition("=")[2] for argument in taken), *arguments]:
        return []
    section = "algorithm" if any(argument.startswith(f"--env.{_DISCOVER}") for argument in taken) else "env"
    return [f"--{section}.{_DISCOVER}={PLUGIN}"]


def unknown(name: str) -> str:
    """Say what to give in place of a command that is none."""
    if name.startswith("-"):
        return f"give a command before its options: pirl train {name} … (pirl --help lists them)."
    near = get_close_matches(name, COMMANDS, n=1)
    meant = f" Did you mean pirl {near[0]}?" if near else ""
    return f"there is no command {name!r}.{meant} (pirl --help lists them)"


def overview() -> str:
    """Return all commands, each with what it does and an example."""
    width = max(map(len, COMMANDS)) + 2
    lines = ["pirl COMMAND …: π-RL for X-VLA with LeRobot's own actor. COMMAND --help says what one takes."]
    for name, entry in COMMANDS.items():
        example = f"pirl {name} {entry.examples[0][1]}".rstrip()
        lines += ["", f"  {name:{width}}{entry.what}", f"  {'':{width}}{example}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
