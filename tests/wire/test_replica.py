"""A policy server in a process of its own: when it ends by itself, and what its process says then."""

import threading

import numpy as np
import pytest
from certificates import Authority, secured
from test_act import SPEC

from bridge.replica import Replica
from bridge.wire.policy_servers import PolicyServers
from bridge.wire.server import LearnerServer
from pirl_jax.likelihood.modes import NOISE_HEAD
from pirl_jax.recipe import SecurityConfig
from pirl_jax.rollout.assignments import Assignments
from pirl_jax.serving.batching import Batcher

SHAPES = {NOISE_HEAD: {"bias": np.zeros(3, np.float32)}}
AGREEMENT = {"algorithm.noise.mode": "terminal"}


class Service:
    """A policy server without a policy."""

    def __init__(self):
        self.acting, self.batcher, self.published = (
            self,
            Batcher(lambda asked: asked, 1, 0.0),
            threading.Event(),
        )

    def publish(self, run, version, behaviour):
        self.published.set()


def learner_server(**settings):
    return LearnerServer(
        "127.0.0.1",
        0,
        decode=lambda message: None,
        assignments=Assignments(4, seed=3),
        agreement={},
        policy_servers=PolicyServers(AGREEMENT),
        **settings,
    )


@pytest.fixture
def learner():
    with learner_server() as server:
        yield server


def replica(learner, service, stop, agreement=AGREEMENT):
    address = f"127.0.0.1:{learner.port}"
    return Replica(service, SPEC, "127.0.0.1", 0, address, agreement, SHAPES, 4, stop)


def test_what_the_learner_pushes_is_taken_over(learner):
    service, stop = Service(), threading.Event()
    learner.publish(1, 0.5, {f"{NOISE_HEAD}.bias": np.ones(3, np.float32)})
    with replica(learner, service, stop) as server:
        assert service.published.wait(10)
        assert server.failure is None


def test_a_push_that_cannot_be_read_ends_the_server_which_would_act_with_old_parameters_for_ever(learner):
    stop = threading.Event()
    learner.publish(1, 0.5, {f"{NOISE_HEAD}.bias": np.ones(4, np.float32)})
    with replica(learner, Service(), stop) as server:
        assert stop.wait(10)
    assert isinstance(server.failure, RuntimeError)  # no `error: ` line: it is started again


def test_a_server_that_the_learner_refuses_ends_with_the_learners_words(learner):
    stop = threading.Event()
    with replica(learner, Service(), stop, {"algorithm.noise.mode": "flow_sde"}) as server:
        assert stop.wait(10)
    assert isinstance(server.failure, ValueError)
    assert 'algorithm.noise.mode is "flow_sde" and the learner\'s is "terminal"' in str(server.failure)


@pytest.mark.parametrize(
    ("own", "words"), [("plaintext", "speaks TLS: set "), ("no token", "this run asks for its token")]
)
def test_a_server_that_the_learner_does_not_let_in_ends_with_what_to_set(tmp_path, own, words):
    authority, stop = Authority(tmp_path), threading.Event()
    mine = SecurityConfig() if own == "plaintext" else SecurityConfig(**authority.server)
    with learner_server(security=secured(authority, tmp_path)) as learner:
        there = "127.0.0.1", 0, f"127.0.0.1:{learner.port}"
        with Replica(Service(), SPEC, *there, AGREEMENT, SHAPES, 4, stop, mine) as server:
            assert stop.wait(20)
    assert isinstance(server.failure, ValueError)
    assert words in str(server.failure)


def test_a_port_in_use_is_said_with_the_settings(learner):
    here, there = ("127.0.0.1", learner.port), "127.0.0.1:1"
    server = Replica(Service(), SPEC, *here, there, AGREEMENT, SHAPES, 4, threading.Event())
    with pytest.raises(OSError, match=r"the port is in use.*algorithm.serve.port"), server:
        pass
