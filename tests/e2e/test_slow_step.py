"""A signal in the middle of an update that takes minutes."""

import signal
import time
from pathlib import Path

import pytest
from fake_actor import FakeActor
from test_learner import feed, free_port, wait_for, write_config

from bridge.processes import Command
from pirl_jax.run_folder import manifest
from pirl_jax.run_folder.layout import read_step

HERE = Path(__file__).parent


@pytest.mark.e2e
def test_the_last_completed_update_is_saved_within_seconds(tmp_path):
    """LeRobot's save_freq would not have saved it yet."""
    port = free_port()
    config = write_config(tmp_path, port, algorithm={"optimizer": {"num_epochs": 4}})
    arguments = [f"--config_path={config}", "--save_freq=100"]
    log, path = tmp_path / "log", {"PYTHONPATH": f"{HERE.parent}:{HERE.parents[1]}"}
    process = Command("slow_learner", arguments, log, environment=path)
    actor = FakeActor(config)
    try:
        feed(actor, 1)
        actor.wait_for_version(2)
        feed(actor, 1)
        wait_for(lambda: "in a slow step" in log.read_text())
        last = tmp_path / "output" / "checkpoints" / "last"
        assert not last.exists()
        process.terminate()
        told = time.monotonic()
        wait_for(last.exists, timeout=20)
        assert time.monotonic() - told < 20
        assert process.running  # the step is not over
        process._process.send_signal(signal.SIGTERM)
        wait_for(lambda: not process.running)
    finally:
        process.kill()
        actor.close()
    assert process.poll() == 128 + signal.SIGTERM
    assert read_step(last) == 1
    assert manifest.damage(last) is None
