"""Runs whose port has a token and TLS: of the real learner, launch and stock actors."""

import contextlib

import pytest
from certificates import TOKEN, Authority, token_file
from forked import Command
from real_launch import Launch
from test_learner import free_port, write_config
from test_sac import offline_dataset, sac_config
from test_sac import start as start_stock

from bridge.wire.server import LearnerServer
from pirl_jax.recipe import SecurityConfig
from pirl_jax.rollout.assignments import Assignments

pytestmark = pytest.mark.e2e


@contextlib.contextmanager
def launched(folder, monkeypatch, *arguments):
    launch = Launch(folder, monkeypatch, *arguments)
    try:
        yield launch
    finally:
        launch.close()


def files_with(text, folder):
    return [
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink() and text.encode() in file.read_bytes()
    ]


def test_a_launch_with_token_and_tls_learns_and_leaves_the_token_nowhere(tmp_path, monkeypatch):
    """Learner, stock actor and the launch's own question, on a port that the certificate is for."""
    secrets = tmp_path / "secrets"
    security = {**Authority(secrets).server, "token_file": token_file(secrets)}
    config = write_config(tmp_path, free_port(), algorithm={"security": security})
    with launched(tmp_path, monkeypatch, f"--config_path={config}", "--steps=1", "--actors=1") as run:
        run.until(lambda: run.supervisor.actors[0].registered)
        assert run.end().end == "finished"
    learner = (tmp_path / "output.launch/learner/01.log").read_text()
    assert ", with token and TLS." in learner
    saved = tmp_path / "output/checkpoints/last/pretrained_model/train_config.json"
    assert security["token_file"] in saved.read_text()
    assert files_with(TOKEN, tmp_path) == ["secrets/token"]


def test_an_actor_that_is_not_let_in_ends_with_one_line(tmp_path):
    """LeRobot's own would ask for a minute, say that it could not connect, and exit with 0."""
    authority = Authority(tmp_path / "secrets")
    shown = {"token_file": token_file(tmp_path / "secrets")}
    (tmp_path / "wrong").write_text("a-token-of-another-run-altogether")
    security = SecurityConfig(**authority.server, **shown)
    assignments = Assignments(4, seed=3)
    server = LearnerServer(
        "127.0.0.1", 0, decode=lambda _: None, assignments=assignments, agreement={}, security=security
    )
    cases = {
        "plaintext": (shown, "the learner cannot be reached: 127.0.0.1:{port} speaks TLS: set "),
        "no token": ({"tls_ca": authority.certificate}, "refused this actor: this run asks for its token"),
        "wrong token": (
            {"tls_ca": authority.certificate, "token_file": str(tmp_path / "wrong")},
            "the learner refused this actor: this is not the run's token: set PIRL_TOKEN",
        ),
    }
    with server:
        for name, (settings, words) in cases.items():
            folder = tmp_path / name.replace(" ", "_")
            config = write_config(folder, server.port, algorithm={"security": settings})
            arguments = [f"--config_path={config}", "--env.discover_packages_path=bridge.plugin"]
            with Command("lerobot.rl.actor", arguments, folder / "log") as actor:
                assert actor.wait(60) == 1
            last = (folder / "log").read_text().splitlines()[-1]
            assert last.startswith("error: the learner ")
            assert words.format(port=server.port) in last


@pytest.mark.slow  # LeRobot's actor asks for a minute
def test_a_stock_sac_actor_knows_neither_token_nor_tls_and_is_not_let_in(tmp_path):
    security = SecurityConfig(
        **Authority(tmp_path / "secrets").server, token_file=token_file(tmp_path / "secrets")
    )
    server = LearnerServer(
        "127.0.0.1",
        0,
        decode=lambda _: None,
        assignments=Assignments(4, seed=3),
        agreement={},
        security=security,
    )
    with server:
        dataset = offline_dataset(tmp_path / "dataset")
        config = sac_config(tmp_path / "actor", server.port, dataset, control_time_s=0.5)
        actor, log = start_stock("actor", config, tmp_path)
        with actor:
            actor.wait(240)
        said = log.read_text()
        assert "Traceback" not in said
        assert "Failed to establish connection with Learner" in said, said[-2000:]
        stats = server.stats()
        assert (stats["messages"], stats["bytes_received"], stats["bytes_sent"]) == (0, 0, 0)


@pytest.mark.slow
def test_policy_servers_of_their_own_and_light_actors_with_certificates_of_clients(tmp_path, monkeypatch):
    secrets = tmp_path / "secrets"
    authority = Authority(secrets)
    security = {**authority.server, **authority.client, "tls_client_ca": authority.certificate}
    config = write_config(
        tmp_path,
        free_port(),
        algorithm={
            "inference": "served",
            "serve": {"mode": "process", "port": free_port(), "max_batch": 2},
            "security": {**security, "token_file": token_file(secrets)},
        },
    )
    with launched(tmp_path, monkeypatch, f"--config_path={config}", "--steps=1", "--actors=1") as run:
        run.until(lambda: run.outcome is not None, timeout=400)
        assert run.end().end == "finished"
    server = (tmp_path / "output.launch/server0/01.log").read_text()
    assert ", with token and TLS." in server
