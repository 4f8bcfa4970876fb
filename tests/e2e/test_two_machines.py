"""A learner and its actor in network namespaces of their own, joined by a wire: as on two machines."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from certificates import Authority, token_file
from test_learner import free_port, wait_for, write_config

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LEARNER, ACTOR = "10.77.0.1", "10.77.0.2"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def machines():
    """Return the names of two namespaces, learner's and actor's, in which the addresses above are up."""
    names = f"pirl-learner-{os.getpid()}", f"pirl-actor-{os.getpid()}"
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` to make network namespaces with")
    with ExitStack() as made:
        try:
            for name in names:
                ip("netns", "add", name)
                made.callback(ip, "netns", "del", name)
            ip(
                "-n",
                names[0],
                "link",
                "add",
                "wire",
                "type",
                "veth",
                "peer",
                "name",
                "wire",
                "netns",
                names[1],
            )
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces may be made here: {error.stderr.strip()}")
        for name, address in zip(names, (LEARNER, ACTOR)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names


def start(machine: str, module: str, log: Path, *arguments: str) -> subprocess.Popen:
    command = ["ip", "netns", "exec", machine, sys.executable, "-m", module, *arguments]
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


def test_an_actor_on_another_machine_plays_for_the_learner(tmp_path, machines):
    """The learner listens on all addresses; the actor finds it by the one that the certificate is for."""
    secrets = tmp_path / "secrets"
    security = {**Authority(secrets, LEARNER).server, "token_file": token_file(secrets), "bind": "0.0.0.0"}
    port = free_port()
    address = {"learner_host": LEARNER, "learner_port": port, "queue_get_timeout": 0.2}
    config = write_config(tmp_path, port, algorithm={"actor_learner_config": address, "security": security})
    plugin = "--env.discover_packages_path=bridge.plugin"
    logs = {name: tmp_path / f"{name}.log" for name in ("learner", "actor")}
    learner = start(machines[0], "pirl_jax.learner", logs["learner"], f"--config_path={config}", "--steps=1")
    own = (plugin, f"--output_dir={tmp_path}/actor")
    with ExitStack() as running:
        running.callback(learner.kill)
        wait_for(lambda: "Learner listens on 0.0.0.0:" in logs["learner"].read_text(), 300)
        actor = start(machines[1], "lerobot.rl.actor", logs["actor"], f"--config_path={config}", *own)
        running.callback(actor.kill)
        assert learner.wait(300) == 0, {name: log.read_text()[-2000:] for name, log in logs.items()}
    assert [process.wait(30) is not None for process in (learner, actor)] == [True, True]
