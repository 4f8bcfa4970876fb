"""What every test has: one compilation cache for all processes, and a logger as it was before."""

import logging
import os
import shutil
import tempfile

import pytest

CACHE = "JAX_COMPILATION_CACHE_DIR"


def pytest_configure(config: pytest.Config) -> None:
    """Before jax is imported, and before workers and commands are started, which inherit it."""
    if CACHE not in os.environ:
        os.environ[CACHE] = tempfile.mkdtemp(prefix="pirl-tests-")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(CACHE), ignore_errors=True))


@pytest.fixture(autouse=True)
def logging_stays_as_it_was():
    """A command that is run in a test sets up logging, to a stream that pytest closes afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
