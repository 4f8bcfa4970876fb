"""Cases that take long and are much alike: a few in ``make test``, the others in ``make test-slow``."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick(cases: Iterable[Any], *shown: Any) -> list[Any]:
    """Return the cases for ``pytest.mark.parametrize``: all but those ``shown`` are slow tests.

    Args:
        cases: values of one parameter, or tuples of several.
        shown: some of them.
    """
    cases = list(cases)
    assert all(case in cases for case in shown), "a case that is shown is none of them"
    return [
        case
        if case in shown
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]
