"""A learner on several devices, as its users start it; a CPU stands for them."""

import os

import pytest
from fake_actor import FakeActor
from test_learner import feed, final_state, free_port, wait_for, write_config

from bridge.processes import Command

FOUR = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"}


@pytest.mark.e2e
@pytest.mark.slow
def test_a_run_on_four_devices_goes_on_on_two(tmp_path):
    """Scored, updated, published and saved there."""
    config = write_config(tmp_path, free_port(), algorithm={"rollout": {"max_staleness": 0}})
    last = tmp_path / "output" / "checkpoints" / "last"
    whole = [f"--config_path={config}", "--algorithm.mesh.data=2", "--algorithm.mesh.fsdp=2"]
    resumed = [
        f"--config_path={last / 'pretrained_model' / 'train_config.json'}",
        *("--resume=true", "--algorithm.mesh.fsdp=1"),
    ]
    actor, log = FakeActor(config), tmp_path / "log"
    process = Command("pirl_jax.learner", whole, log, environment=FOUR)
    try:
        feed(actor, 2)
        wait_for(lambda: last.is_symlink() and last.readlink().name == "000002")
        process.kill()
        process = Command("pirl_jax.learner", resumed, tmp_path / "log2", environment=FOUR)
        feed(actor, 2)
        actor.wait_for_version(5)
        wait_for(lambda: not process.running, timeout=120)
        assert process.poll() == 0, (tmp_path / "log2").read_text()[-2000:]
    finally:
        process.kill()
        actor.close()
    assert final_state(tmp_path)["updates"] == 4
    said = (tmp_path / "log2").read_text()
    assert "JAX sees 4 devices, and 2 are computed on (algorithm.mesh)" in said
    assert "algorithm.mesh.fsdp is 1 from here on; the saved run had 2" in said
