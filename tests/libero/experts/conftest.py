"""A task of each suite, built once and not drawn."""

import pytest

from bridge.libero.demonstrate import environment
from bridge.libero.suites import TaskId


def built(suite, number):
    environment.cache_clear()
    env = environment(TaskId(suite, number), 8)
    env.set_rendering(False)
    env.reset(seed=0, options={"task": 0, "init_state": 0})
    return env


@pytest.fixture(scope="session")
def spatial(libero_assets):
    """``libero_spatial`` 0: the bowl between the plate and the ramekin."""
    env = built("libero_spatial", 0)
    yield env
    env.close()


@pytest.fixture(scope="session")
def basket(libero_assets):
    """``libero_object`` 0: the alphabet soup into the basket."""
    env = built("libero_object", 0)
    yield env
    env.close()
