"""What every test has: one way of compiling, one cache for all processes; logger and signals as they were."""

import gc
import logging
import os
import shutil
import signal
import sys
import tempfile

import pytest

from pirl_jax.ending import SIGNALS

CACHE = "JAX_COMPILATION_CACHE_DIR"
COMPILE_FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Most programs here are compiled once and run a few times on small arrays. These leave out what LLVM does
for speed; how XLA transforms a program, and the precision it computes in, stay as they are."""


def pytest_configure(config: pytest.Config) -> None:
    """Before jax is imported, and before workers and commands are started, which inherit it."""
    os.environ.setdefault("XLA_FLAGS", COMPILE_FAST)
    if CACHE not in os.environ:
        os.environ[CACHE] = tempfile.mkdtemp(prefix="pirl-tests-")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(CACHE), ignore_errors=True))


def pytest_collection_finish() -> None:
    """torch, JAX and the tests themselves stay: the collector, which robosuite calls for every scene that it
    gives up, need not look at them each time."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(autouse=True)
def signals_stay_as_they_were():
    """A command that is run in a test decides what signals do, to the end of its process."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.fixture(autouse=True, scope="module")
def programs_are_let_go():
    """Of a file's compiled programs the next file needs few, and finds them on disk. A worker that kept all
    would hold gigabytes in the end."""
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()
