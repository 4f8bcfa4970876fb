"""What LeRobot's parser refuses, in one line that names the setting, the value and what is allowed.

Its own words are the usage of every option of every config, a thousand lines, or a traceback.
"""

from __future__ import annotations

import difflib
import functools
import io
import pydoc
import re
import sys
from contextlib import redirect_stderr
from typing import Any

import draccus
from draccus.argparsing import ArgumentParser
from draccus.utils import DecodingError, DraccusException, ParsingError
from draccus.wrappers import docstring
from lerobot.configs import PreTrainedConfig

from bridge.plugin import seams, transport

_NO_CHOICE = re.compile(
    r"(?:Couldn't find a choice class for '(.*)' in|.* a 'type' key for) <class '([\w.]+)'>"
)
_TRIED = re.compile(r"\n {4}(\S[^\n]*)")
"""Of a value that may have one of several types: why it has none of them."""
_in_one_line = False


class RefusedError(ParsingError):
    """A command line or config file that does not fit; says all in one line.

    No ``DecodingError``: those LeRobot prints itself, in several.
    """


def say_in_one_line() -> None:
    """From here on what is wrong with a config is told in one line, by which an actor ends."""
    global _in_one_line
    _in_one_line = True


def parse(config_class: type, *args: Any, **kwargs: Any) -> Any:
    """Parse as draccus does.

    Raises:
        RefusedError: It does not fit.
        SystemExit: Likewise, in LeRobot's actor, which would print a traceback.
    """
    if not _in_one_line:
        return _stock_parse(config_class, *args, **kwargs)
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            cfg = _stock_parse(config_class, *args, **kwargs)
    except DraccusException as error:
        line = error_in_words(error, _section(config_class))
    except SystemExit:  # argparse: the usage, and in its last line what is wrong
        line = _of_usage(said.getvalue(), config_class)
    else:
        sys.stderr.write(said.getvalue())
        return cfg
    if transport.is_actor():
        sys.exit(f"error: {line}")
    raise RefusedError(line)


def error_in_words(error: BaseException, section: str = "") -> str:
    """Return what is wrong with a config, in one line.

    The outermost errors say where, the innermost what: between them each level repeats the one below it.

    Args:
        error: of draccus.
        section: which the config is of another, as ``policy``.
    """
    chain, inner = [], error
    while inner is not None:
        chain.append(inner)
        inner = inner.__cause__
    paths = [".".join(each.key_path) for each in chain if isinstance(each, DecodingError)]
    where = ".".join(filter(None, (section, max(paths, key=len, default=""))))
    for number, each in enumerate(chain):
        below = chain[number + 1] if number + 1 < len(chain) else None
        tried = _TRIED.findall(each.message) if isinstance(each, DecodingError) else []
        if len(tried) > 1:
            return _at(where, "; ".join(tried))
        if isinstance(each, DecodingError) and not (tried and below):
            return _at(where, _what(each, below))
        if type(each) is ParsingError:
            built = below is not None and str(each).startswith("Couldn't instantiate class")
            return _at(where, str(below) if built else _what(each, below))
    return _at(where, str(chain[-1]))


def _what(error: BaseException, below: BaseException | None) -> str:
    said = error.message if isinstance(error, DecodingError) else str(error)
    if found := _NO_CHOICE.search(said):
        choices = ", ".join(pydoc.locate(found[2]).get_known_choices())  # pyright: ignore
        given = "is missing" if found[1] is None else f"is {found[1]!r}"
        return f"its type {given}; there are {choices}."
    if isinstance(below, AttributeError):  # a section's `.copy()`, a mapping's `.items()`
        value = said.partition("value='")[2].partition("' into field")[0]
        return f"{value} stands where a section should: give its settings one by one."
    return said


def _at(where: str, said: str) -> str:
    said = " ".join(said.split())
    named = not where or said.startswith(where)  # by our own configs
    return said if named else f"{where}: {said}"


def _section(config_class: type) -> str:
    """Return where in a run's config a config stands that LeRobot parses by itself; "" for the run's own."""
    return "policy" if issubclass(config_class, PreTrainedConfig) else ""


def _of_usage(said: str, config_class: type) -> str:
    """Return the last line of a usage, with the options that may have been meant."""
    line = " ".join(said.rsplit("error: ", 1)[-1].split())
    if not line.startswith("unrecognized arguments: "):
        return line
    section = _section(config_class) + "." if _section(config_class) else ""
    options = ArgumentParser(config_class).parser._option_string_actions
    words, meant = [], []
    for word in line.removeprefix("unrecognized arguments: ").split():
        name = word.partition("=")[0]
        meant += difflib.get_close_matches(name, options, n=1, cutoff=0.8) if name.startswith("--") else []
        words.append(f"--{section}{word.removeprefix('--')}" if name.startswith("--") else word)
    hints = ", ".join(f"--{section}{name.removeprefix('--')}" for name in meant)
    return f"unrecognized arguments: {' '.join(words)}" + (f" (did you mean {hints}?)" if hints else "")


_stock_parse = seams.install(seams.PARSE, draccus, parse)
seams.install(seams.OPTION_HELP, docstring, functools.cache(docstring.get_attribute_docstring))
