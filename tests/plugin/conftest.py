"""Tests of the plugin in a process that is not LeRobot's actor, unless a test says that it is."""

import pytest


@pytest.fixture(autouse=True)
def no_actor(monkeypatch):
    """Other folders' tests import LeRobot's actor, by which a process is taken for one."""
    from bridge.plugin import transport

    monkeypatch.setattr(transport, "is_actor", lambda: False)
